"""Teachers as settings: the shorthand, clear errors, and no secret anywhere."""

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from medaction.llm.teacher import Teacher

KEY = "sk-proj-abcdefghijklmnop0123456789"


def test_the_shorthands() -> None:
    assert Teacher.parse("kg-screening").embedded
    assert Teacher.parse("local").local
    hosted = Teacher.parse("openai/gpt-5.4-mini")
    assert (hosted.name, hosted.model, hosted.api_base) == (
        "gpt-5.4-mini",
        "openai/gpt-5.4-mini",
        None,
    )
    served = Teacher.parse("openai/baichuan/M3:8bit@http://127.0.0.1:8000/v1")
    assert (served.name, served.model, served.api_base) == (
        "M3-8bit",
        "openai/baichuan/M3:8bit",
        "http://127.0.0.1:8000/v1",
    )
    assert Teacher.parse("vertex_ai/claude@20260101").model == "vertex_ai/claude@20260101"


def test_the_defaults_are_the_papers() -> None:
    teacher = Teacher.parse("openai/x")
    assert (teacher.temperature, teacher.max_tokens, teacher.top_p, teacher.free_form) == (
        0.6,
        5500,
        None,
        0.1,
    )


@pytest.mark.parametrize("text", ["openai/x", "openai/x@http://127.0.0.1:1/v1", "kg-screening"])
def test_settings_may_follow_the_model(text: str) -> None:
    """On the command line and in YAML, for teachers, judges, oracle and extractor alike."""
    teacher = Teacher.parse(f"{text};structured=none;seed=none;temperature=none;max_tokens=900")
    assert (teacher.structured, teacher.left_out) == ("none", ("seed", "temperature"))
    assert teacher.max_tokens == 900
    fields = {"structured": "none", "seed": "none", "temperature": "none", "max_tokens": 900}
    assert Teacher.model_validate({"model": text} | fields) == teacher
    twice = {"model": text, "seed": "none", "left_out": ["seed", "max_tokens"]}
    assert Teacher.model_validate(twice).left_out == ("seed", "max_tokens")
    assert Teacher.model_validate({"model": text, "seed": "none", "left_out": None}).left_out
    with pytest.raises(ValidationError, match="left_out"):
        Teacher.model_validate({"model": text, "seed": "none", "left_out": "seed"})
    assert teacher.name == Teacher.parse(text).name
    assert Teacher.model_validate({"model": f"{text};in_flight=3"}).in_flight == 3
    assert Teacher.parse(f"{text};name=other").name == "other"


def test_every_field_explains_itself_in_the_form() -> None:
    assert all(field.description for field in Teacher.model_fields.values())


def test_a_teacher_survives_json() -> None:
    for text in ("kg-targeted", "local", "openai/x@http://127.0.0.1:1/v1"):
        teacher = Teacher.parse(text)
        assert Teacher.model_validate_json(teacher.model_dump_json()) == teacher


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "give kg-screening"),
        ("kg-screning", "unknown teacher 'kg-screning'"),
        ("gpt-5.4-mini", "PROVIDER/MODEL"),
        ("openai/", "PROVIDER/MODEL"),
        ("openai/x y", "cannot read"),
        ("openai/x;seed", "write NAME=VALUE"),
        ("openai/x;structured=xml", "json_object"),
        ("openai/x;colour=red", "colour"),
        ("local:/no/such/model.gguf", "there is no file /no/such/model.gguf"),
        ("openai/x@http://user:secret@host/v1", "without user, password"),
        ("openai/x@http://host/v1?key=secret", "without user, password"),
        ("kg-screening@http://127.0.0.1:1/v1", "takes no api_base"),
    ],
)
def test_a_shorthand_that_means_nothing_is_refused_with_what_there_is(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Teacher.parse(text)


@pytest.mark.parametrize("field", ["api_key_env", "api_base"])
def test_a_key_given_by_mistake_is_refused_and_not_repeated(field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Teacher.model_validate({"name": "x", "model": "openai/x", field: KEY})
    assert KEY not in str(refused.value)


def test_identity_is_what_a_rollout_depends_on() -> None:
    teacher = Teacher(
        name="a", model="openai/x", api_base="http://127.0.0.1:1/v1", api_key_env="SOME_KEY"
    )
    moved = teacher.model_copy(
        update={"api_base": "http://127.0.0.1:2/v1", "timeout_s": 5.0, "api_key_env": None}
    )
    assert moved.identity() == teacher.identity()
    limits = {
        "in_flight": 2,
        "requests_per_minute": 3,
        "tokens_per_minute": 4,
        "budget_usd": 5.0,
        "mirrors": ("http://m/v1",),
    }
    prices = {"usd_per_million_prompt_tokens": 6.0, "usd_per_million_completion_tokens": 7.0}
    assert (
        teacher.model_copy(update={**limits, **prices, "free_form": 0.5}).identity()
        == teacher.identity()
    )
    for change in (
        {"temperature": 0.1},
        {"top_p": 0.9},
        {"max_tokens": 100},
        {"structured": "none"},
        {"model": "openai/y"},
    ):
        assert teacher.model_copy(update=change).identity() != teacher.identity()
    assert Teacher.parse("kg-screening").identity() != Teacher.parse("kg-targeted").identity()


def test_a_changed_model_file_is_another_teacher(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF one")
    teacher = Teacher.parse(f"local:{file}")
    before = teacher.identity()
    copy = Path(shutil.copy(file, tmp_path / "moved.gguf"))
    assert Teacher.parse(f"local:{copy}").identity() == before
    file.write_bytes(b"GGUF two")
    assert teacher.identity() != before


def test_the_local_file_comes_from_the_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "named.gguf"
    file.touch()
    monkeypatch.setenv("MEDACTION_LOCAL_GGUF", str(file))
    assert Teacher.parse("local").model_file == str(file)
    monkeypatch.setenv("MEDACTION_LOCAL_GGUF", str(tmp_path / "gone.gguf"))
    with pytest.raises(RuntimeError, match=r"there is no file .*gone\.gguf; give --teacher local:"):
        Teacher.parse("local").model_file  # noqa: B018


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"model": "openai/x", "mirrors": ["http://127.0.0.1:1/v1"]},
            "give the first one as api_base",
        ),
        (
            {"model": "openai/x", "api_base": "http://h/v1", "mirrors": ["http://u:p@h/v1"]},
            "without user, password",
        ),
        ({"model": "openai/x", "gguf": "m.gguf"}, "only a local teacher takes a gguf"),
        ({"model": "kg-screening", "free_form": 0.1}, "no free-form rollouts"),
        ({"model": "openai/x", "budget_usd": -1}, "budget_usd"),
    ],
)
def test_settings_that_do_not_fit(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Teacher.model_validate(fields)


@pytest.mark.parametrize(
    "text", ["kg-screening", "local", "openai/gpt-5.4-mini@http://127.0.0.1:8000/v1"]
)
def test_a_form_that_gives_every_field_asks_for_the_same_teacher(text: str) -> None:
    short = {"model": text}
    filled = {
        name: field.default
        for name, field in Teacher.model_fields.items()
        if not field.is_required()
    } | short
    assert Teacher.model_validate(filled) == Teacher.model_validate(short) == Teacher.parse(text)


def test_embedded_teachers_write_no_free_form() -> None:
    assert Teacher.parse("kg-screening").free_form == 0
    assert Teacher.model_validate(Teacher.parse("kg-screening").model_dump()).free_form == 0


def test_servers() -> None:
    assert Teacher.parse("openai/gpt-5.4-mini").servers == ("openai",)
    fields = {"model": "hosted_vllm/m", "api_base": "http://a/v1", "mirrors": ["http://b/v1"]}
    assert Teacher.model_validate(fields).servers == ("http://a/v1", "http://b/v1")


def test_spaces_around_a_setting_do_not_count() -> None:
    teacher = Teacher.parse("openai/x; seed = none ; temperature = 0.3")
    assert (teacher.left_out, teacher.temperature) == (("seed",), 0.3)


def test_a_model_without_latin_letters_needs_a_name() -> None:
    with pytest.raises(ValueError, match="add ;name=NAME"):
        Teacher.parse("openai/模型@http://127.0.0.1:1/v1")
    assert Teacher.parse("openai/模型@http://127.0.0.1:1/v1;name=own").name == "own"
