"""`medaction doctor`: it names what is wrong and the remedy, and never shows a key."""

import json
import os
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from click.testing import CliRunner

from medaction.cli.main import medaction
from medaction.flows.doctor import examine
from medaction.flows.model_checks import check_models
from medaction.flows.settings import DistillSettings, EvaluationSettings
from medaction.words.processes import free_port
from tests.openai_server import Asked, Reply, openai_server
from tests.other_servers import WAYS

KEY = "sk-proj-abcdefghijklmnop0123456789"


def findings_of(
    monkeypatch: pytest.MonkeyPatch, out: Path, *teachers: dict[str, object], **environment: str
) -> dict[str, tuple[str, str, str]]:
    for name in ("PREFECT_API_URL", "RAY_ADDRESS", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = DistillSettings.model_validate(
        {"cases": "cases", "out": out, "teachers": list(teachers) or [{"model": "kg-targeted"}]}
    )
    return {
        finding.subject: (finding.state, finding.fact, finding.remedy)
        for finding in examine(settings)
    }


def test_a_machine_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    findings = findings_of(monkeypatch, tmp_path)
    assert {
        findings[what][0]
        for what in ("packages", "Ray", "graph", "disk of the run", "teacher kg-targeted")
    } == {"ok"}
    assert "nodes" in findings["graph"][1]


def test_what_does_not_answer_is_wrong_and_has_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    gone = {"name": "gone", "model": "openai/gone", "api_base": f"http://{nobody}/v1"}
    file = {"name": "file", "model": "local", "gguf": tmp_path / "missing.gguf"}
    findings = findings_of(
        monkeypatch,
        tmp_path,
        gone,
        file,
        PREFECT_API_URL=f"http://{nobody}/api",
        RAY_ADDRESS=nobody,
    )
    for what in ("Prefect", "Ray", "teacher gone", "teacher file"):
        state, _, remedy = findings[what]
        assert (what, state) == (what, "wrong")
        assert remedy


def test_an_address_that_is_not_prefects_api_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Prefect's own server answers every page beside its API with the HTML of its UI."""
    (tmp_path / "admin").mkdir()
    (tmp_path / "admin" / "version").write_text("<html>Prefect</html>")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for url in (f"http://127.0.0.1:{server.server_port}", "http://[half"):
            findings = findings_of(monkeypatch, tmp_path, PREFECT_API_URL=url, RAY_ADDRESS="auto")
            assert findings["Prefect"][0] == "wrong"
            assert "ends in /api" in findings["Prefect"][2]
            assert findings["Ray"][0] == "ok", "Ray finds or starts one here"
        for address in ("http://[half", "anyscale://cluster"):
            findings = findings_of(monkeypatch, tmp_path, RAY_ADDRESS=address)
            assert findings["Ray"][0] == "wrong"
        server.shutdown()


def test_a_key_is_there_or_not_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    teacher = {"name": "paid", "model": "openai/gpt-4o-mini", "api_key_env": "OPENAI_API_KEY"}
    without = findings_of(monkeypatch, tmp_path, teacher)["teacher paid"]
    assert without[0] == "wrong"
    assert "OPENAI_API_KEY" in " ".join(without)

    def refuses(asked: Asked, number: int) -> Reply:
        return Reply(f"Incorrect API key provided: {asked.headers['authorization']}", status=401)

    with openai_server(refuses) as server:
        elsewhere = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        findings = findings_of(monkeypatch, tmp_path, teacher, **elsewhere)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    state, fact, remedy = findings["teacher paid"]
    assert (state, remedy) == ("wrong", "put a key that may use this model into OPENAI_API_KEY")
    assert KEY not in fact


def test_a_server_of_ones_own_never_sees_a_providers_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with openai_server(WAYS["ok"].answer) as server:
        mine = {"name": "mine", "model": "openai/mine", "api_base": server.url}
        findings = findings_of(monkeypatch, tmp_path, mine, OPENAI_API_KEY=KEY)
    assert findings["teacher mine"][0] == "ok"
    assert server.asked
    assert all(KEY not in str(asked.headers) for asked in server.asked)


ANSWERS: dict[str, object] = {
    "You turn a medical case": {
        "initial_observation": "A 34-year-old woman came with a dry cough of six weeks and tender"
        " red nodules on both shins. She had no fever and had never smoked.",
        "diagnosis": "Sarcoidosis", "diagnosis_synonyms": [], "rare_disease": True,
        "body_system": "Lungs and Breathing", "disease_type": "Immune and Inflammatory",
    },
    "You write down": {
        "turns": [{
            "reasoning": "Cough and nodules need a first look.",
            "differential": [{"diagnosis": "Tuberculosis", "confidence": 50}],
            "pivot": "Infection or not?", "order_tests": [1, 2],
        }],
        "closing": {
            "reasoning": "Bilateral nodes settle it.",
            "differential": [{"diagnosis": "Sarcoidosis", "confidence": 90}],
            "pivot": "The radiograph did.",
        },
    },
    "You match an ordered": {"entries": [1]},
    "You judge whether": {"answer": "correct"},
    "You answer a junior": "A chest radiograph showed bilateral hilar nodes.",
}  # fmt: skip
MENU = {
    "tests": [
        {"name": name, "category": category, "result": result, "aliases": []}
        for name, category, result in (
            ("Complete blood count", "laboratory", "Hemoglobin was 12.9 g/dL."),
            ("Chest radiograph", "imaging", "A chest radiograph showed bilateral hilar nodes."),
        )
    ]
}


def plays_every_part(asked: Asked, number: int) -> Reply:
    """A model that is good at whatever a run asks of one."""
    system, user = (row["content"] for row in asked.body["messages"][:2])
    if "which diagnostic tests did this patient have" in user:
        return Reply(json.dumps(MENU))
    for beginning, answer in ANSWERS.items():
        if system.startswith(beginning):
            return Reply(answer if isinstance(answer, str) else json.dumps(answer))
    return WAYS["ok"].answer(asked, number)


def unreadable(asked: Asked, number: int) -> Reply:
    return Reply("Please consult a doctor.")


def test_every_model_of_a_distillation_is_asked_a_question_of_its_part(tmp_path: Path) -> None:
    def settings(url: str) -> DistillSettings:
        roles = {role: f"openai/{role}@{url}" for role in ("extractor", "gold", "oracle")}
        teachers = [f"openai/t@{url}", {"name": "f", "model": f"openai/f@{url}", "free_form": 1}]
        return DistillSettings.model_validate(
            {"cases": "cases", "out": tmp_path, "teachers": teachers} | roles
        )

    with openai_server(plays_every_part) as server:
        checks = {check.subject: check for check in check_models(settings(server.url))}
    bad = {"teacher f"}  # this server writes no free-form turn that could be read
    assert {subject for subject, check in checks.items() if check.state == "wrong"} == bad, checks
    assert checks.keys() == {
        "extractor extractor", "gold gold", "oracle oracle", "teacher t", "teacher f",
    }  # fmt: skip
    assert {asked.body["model"] for asked in server.asked} == {
        "extractor", "gold", "oracle", "t", "f",
    }  # fmt: skip
    with openai_server(unreadable) as server:
        checks = {check.subject: check for check in check_models(settings(server.url))}
    assert all(check.state == "wrong" for check in checks.values())
    assert all(check.remedy and "\n" not in check.fact for check in checks.values())
    assert "it began 'Please consult" in checks["teacher t"].fact


def test_every_model_of_an_evaluation_is_asked_too(tmp_path: Path) -> None:
    with openai_server(plays_every_part) as server, openai_server(unreadable) as other:
        settings = EvaluationSettings.model_validate(
            {
                "cases": "cases",
                "out": tmp_path,
                "model": f"openai/model@{server.url}",
                "judges": ["offline", f"openai/good@{server.url}", f"openai/bad@{other.url}"],
                "oracle": {"name": "o", "model": f"openai/o@{server.url}", "mirrors": [other.url]},
            }
        )
        checks = [(check.subject, check.state) for check in check_models(settings)]
    assert checks == [
        ("oracle o", "ok"),
        ("oracle o", "wrong"),
        ("model model", "ok"),
        ("judge good", "ok"),
        ("judge bad", "wrong"),
    ]


@pytest.mark.parametrize(
    ("way", "remedy"),
    [
        ("no_such_model", "there are good-model"),
        ("no_balance", "top up"),
        ("quota", "top it up"),
        ("filtered_400", "change what the message names"),
        ("length", "raise max_tokens"),
        ("refusal", "another model"),
        ("words", "trained to follow"),
    ],
)
def test_what_a_model_cannot_do_is_a_line_with_its_remedy(
    way: str, remedy: str, tmp_path: Path
) -> None:
    with openai_server(WAYS[way].answer) as server:
        settings = DistillSettings.model_validate(
            {"cases": "cases", "out": tmp_path, "teachers": [f"openai/x@{server.url}"]}
        )
        [check] = check_models(settings)
    assert check.state == "wrong"
    assert remedy in check.remedy
    assert WAYS[way].says in check.fact


def test_a_refused_parameter_is_a_note_that_names_the_setting(tmp_path: Path) -> None:
    with openai_server(WAYS["seed_and_schema"].answer) as server:
        settings = DistillSettings.model_validate(
            {"cases": "cases", "out": tmp_path, "teachers": [f"openai/x@{server.url}"]}
        )
        [check] = check_models(settings)
    assert check.state != "wrong"
    assert "';seed=none'" in check.remedy
    assert "';structured=json_object'" in check.remedy


def test_the_command_looks_at_presets_of_every_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    preset = tmp_path / "preset.yaml"
    with openai_server(unreadable) as server:
        model = f"openai/x@{server.url}"
        distil, evaluate = {"cases": "c", "teachers": [model]}, {"cases": "c", "judges": [model]}
        for kind, subjects in (
            (distil, ["teacher x"]),
            (evaluate | {"model": model}, ["judge x", "model x"]),
            (
                {"out": str(tmp_path), "distill": distil, "evaluate": evaluate},
                ["teacher x", "judge x"],
            ),
        ):
            preset.write_text(yaml.safe_dump(kind))
            result = CliRunner().invoke(medaction, ["doctor", "--preset", str(preset)])
            assert result.exit_code == 1
            for subject in subjects:
                assert f"wrong {subject}:" in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    assert findings_of(monkeypatch, tmp_path)["disk of the run"][0] == "wrong"


def test_the_command_ends_with_1_when_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    result = CliRunner().invoke(medaction, ["doctor"])
    assert result.exit_code == 1
    assert "medaction up" in result.output
