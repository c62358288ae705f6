"""Pipelines and ablations: what their settings become, what the deployments offer, and the whole
way with a tiny model."""

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from pydantic import create_model

from medaction.cli.pipeline import pipeline_settings
from medaction.evaluation.ablation import CellRow, ablation_table, write_ablation
from medaction.flows.ablate import AblationSettings, cells, noted, placed, run_cell
from medaction.flows.pipeline_settings import PIPELINES, PipelineSettings
from medaction.flows.stack import REPOSITORY
from medaction.llm.teacher import Teacher
from medaction.training.settings import NEEDED
from tests.conftest import SAMPLES
from tests.runs import medaction


def deployments() -> list[dict[str, Any]]:
    text = (
        (REPOSITORY / "deployments" / "prefect.yaml")
        .read_text()
        .replace("{{ $MEDACTION_EXAMPLES }}", str(SAMPLES))
    )
    return yaml.safe_load(text)["deployments"]


def flow_of(deployment: dict[str, Any]) -> Any:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_deployment_has_a_form_that_explains_itself_with_values_that_its_flow_takes() -> None:
    names = [found["name"] for found in deployments()]
    assert names == [
        "distill",
        "redistill",
        "retry-failed",
        "environments",
        "train",
        "evaluate",
        "pipeline",
        "ablate",
        "experiment",
    ]
    for found in deployments():
        flow = flow_of(found)
        if found["name"] in ("train", "evaluate"):
            assert flow.name == found["name"]  # the pipeline starts NAME/NAME
        given = flow.validate_parameters(found["parameters"])
        schema = parameter_schema(flow).model_dump()
        Draft202012Validator(schema).validate(found["parameters"])
        assert given.keys() >= found["parameters"].keys()
        for model in schema["definitions"].values():
            for name, field in model.get("properties", {}).items():
                assert field.get("description"), (
                    f"{found['name']}: {model['title']}.{name} is not explained"
                )


def filled(schema: dict[str, Any], value: Any, definitions: dict[str, Any]) -> Any:
    """What Prefect's form sends for a value: every field, with its default where nobody gave
    one."""
    options = [schema, *schema.get("anyOf", ()), *schema.get("allOf", ())]
    options = [
        definitions[one["$ref"].rsplit("/", 1)[-1]] if "$ref" in one else one for one in options
    ]
    if isinstance(value, dict):
        fields = next((one["properties"] for one in options if "properties" in one), {})
        sent = {
            name: field.get("default") for name, field in fields.items() if "default" in field
        } | value
        return {name: filled(fields.get(name, {}), one, definitions) for name, one in sent.items()}
    if isinstance(value, list):
        items = next((one["items"] for one in options if "items" in one), {})
        return [filled(items, one, definitions) for one in value]
    return value


@pytest.mark.parametrize("found", deployments(), ids=lambda found: found["name"])
def test_a_form_sent_as_it_stands_asks_for_what_the_deployment_says(found: dict[str, Any]) -> None:
    flow = flow_of(found)
    schema = parameter_schema(flow).model_dump()
    sent = filled(schema, found["parameters"], schema["definitions"])
    assert len(str(sent)) > len(str(found["parameters"]))
    given = flow.validate_parameters(found["parameters"])
    assert {
        name: value for name, value in flow.validate_parameters(sent).items() if name in given
    } == given


@pytest.mark.parametrize("name", ["train", "pipeline"])
def test_a_form_leaves_the_rate_and_passes_to_the_objective(name: str) -> None:
    (found,) = (one for one in deployments() if one["name"] == name)
    schema = parameter_schema(flow_of(found)).model_dump()
    settings = found["parameters"]["settings"]
    training = settings["train"] if name == "pipeline" else settings
    for stated in ("learning_rate", "epochs"):
        training.pop(stated, None)
    training["objective"] = "dpo"
    sent = filled(schema, found["parameters"], schema["definitions"])
    Draft202012Validator(schema).validate(sent)
    read = flow_of(found).validate_parameters(sent)["settings"]
    read = read.train if name == "pipeline" else read
    assert (read.learning_rate, read.epochs) == (1e-6, 1)


def test_flows_are_put_on_a_server_that_lacks_the_packages_of_training() -> None:
    entrypoints = sorted({found["entrypoint"].rpartition(".")[0] for found in deployments()})
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({NEEDED!r})); import"
        f" {', '.join(entrypoints)}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("deployment", "at", "value"),
    [
        ("pipeline", ("train", "epochs"), 0),
        ("pipeline", ("distill", "strategy"), "best"),
        ("evaluate", ("runs",), "many"),
        ("ablate", ("questions",), ["RQ9"]),
        ("train", ("learning_rate",), -1),
    ],
)
def test_the_form_refuses_bad_values(deployment: str, at: tuple[str, ...], value: Any) -> None:
    (found,) = (one for one in deployments() if one["name"] == deployment)
    schema = Draft202012Validator(parameter_schema(flow_of(found)).model_dump())
    settings = found["parameters"]["settings"]
    for name in at[:-1]:
        settings = settings[name]
    settings[at[-1]] = value
    (problem, *_) = schema.iter_errors(found["parameters"])
    assert str(value[0] if isinstance(value, list) else value) in problem.message


def test_the_forms_pipeline_is_the_preset() -> None:
    (found,) = (one["parameters"]["settings"] for one in deployments() if one["name"] == "pipeline")
    preset = yaml.safe_load((PIPELINES / "tiny.yaml").read_text())
    for name in ("scales", "seeds", "records"):
        preset.pop(name)
    preset["distill"]["cases"] = preset["evaluate"]["cases"] = str(SAMPLES)
    assert PipelineSettings.model_validate(found) == PipelineSettings.model_validate(preset)


def test_the_stages_hand_on_their_folders() -> None:
    distilling, training, evaluating = pipeline_settings(
        PipelineSettings, "tiny", Path("out"), "cases", "bench"
    ).stages()
    assert (distilling.cases, distilling.out) == ("cases", Path("out/distill"))
    assert (training.data, training.out, training.against) == (
        ["out/distill"],
        Path("out/model"),
        [],
    )
    assert (evaluating.cases, evaluating.out) == ("bench", Path("out/evaluation"))
    assert (evaluating.model.name, evaluating.model.folder) == ("trained", Path("out/model"))
    elsewhere = PipelineSettings.model_validate(
        {
            "out": "out",
            "distill": {"preset": "demo", "out": "/data/d"},
            "train": {"data": ["/data/d"]},
            "evaluate": {"cases": "b", "model": {"model": "kg-screening"}},
        }
    ).stages()
    assert elsewhere[0].out == Path("/data/d")
    assert elsewhere[0].teachers[1].name == "kg-targeted"
    assert (elsewhere[1].data, elsewhere[1].against) == (
        ["/data/d"],
        ["b"],
    )  # what is evaluated on is never trained on
    assert elsewhere[2].model.folder is None


def test_the_papers_ablation_is_laid_out(tmp_path: Path) -> None:
    settings = pipeline_settings(AblationSettings, "paper", Path("out"), "cases", "bench")
    planned = cells(settings, "base", tmp_path)
    assert not [cell for cell in planned if cell.left_out]
    by_name = {(cell.question, cell.name): cell for cell in planned}
    assert [cell.name for cell in planned if cell.question == "RQ1"] == [
        "base model",
        "gold",
        "gold + gpt-5.4-mini",
        "gold + gpt-5.4-mini + baichuan-m3",
    ]
    gold, with_a = by_name["RQ1", "gold"], by_name["RQ1", "gold + gpt-5.4-mini"]
    assert gold.distill == with_a.distill  # one distillation for both
    assert gold.train
    assert with_a.train
    assert (gold.train.styles, with_a.train.styles) == (["gold"], [])
    assert gold.train.out != with_a.train.out
    shares = [
        {teacher.free_form for teacher in cell.distill.teachers}
        for cell in planned
        if cell.question == "RQ2" and cell.distill
    ]
    assert shares == [{0.0}, {0.1}]
    diverse = [cell for cell in planned if cell.question == "RQ3"]
    assert len({cell.evaluate.out for cell in diverse if cell.evaluate}) == 12  # 3 pools x 2 x 2
    both = "gpt-5.4-mini + baichuan-m3, branches"
    assert (
        by_name["RQ4", "no filter"].evaluate == by_name["RQ3", f"{both}, no filter"].evaluate
    )  # the same cell runs once
    assert len([cell for cell in planned if cell.question == "scaling"]) == 15
    assert {cell.train.base for cell in planned if cell.train} == {"base"}


def test_a_cell_stays_where_it_is_when_a_version_brings_settings_that_it_does_not_use(
    tmp_path: Path,
) -> None:
    """Of every stage; another value, and another default, are other work."""
    settings = pipeline_settings(AblationSettings, "paper", tmp_path, "cases", "bench")
    for stage in settings.stages():
        before = noted(placed(stage, tmp_path))
        assert placed(stage.model_copy(update={"out": tmp_path / "other"}), tmp_path) == before
        known = before.model_dump()
        of_later = {"more": (bool, False)}
        later = create_model("Later", __base__=type(stage), **of_later)(**known)
        assert placed(later, tmp_path).out == before.out
        assert placed(later.model_copy(update={"more": True}), tmp_path).out != before.out
        del known["only"]
        another = create_model("Another", __base__=type(stage), only=(list[str], ["a"]))
        assert placed(another(**known), tmp_path).out != before.out
        (before.out / "settings.json").write_text('{"seed": ')
        assert placed(later, tmp_path).out != before.out


def test_cells_that_cannot_run_say_why(tmp_path: Path) -> None:
    settings = pipeline_settings(AblationSettings, "tiny", tmp_path, None, None)
    planned = cells(settings, "base", tmp_path)
    left_out = {(cell.question, cell.name): cell.left_out for cell in planned if cell.left_out}
    assert left_out.keys() == {("RQ1", "gold"), ("RQ2", "0% free-form"), ("RQ2", "10% free-form")}
    alone = settings.model_copy(
        update={
            "distill": settings.distill.model_copy(
                update={"teachers": settings.distill.teachers[:1]}
            )
        }
    )
    of_one = cells(alone, "base", tmp_path)
    assert {cell.left_out for cell in of_one if " + B" in cell.name} == {
        "there is one teacher: give a second one in distill.teachers"
    }
    pruned = [cell for cell in of_one if cell.question == "RQ4"]
    assert all(cell.distill and len(cell.distill.teachers) == 1 for cell in pruned)


def test_a_cell_that_fails_is_a_row_and_its_question_is_drawn(
    tmp_path: Path, prefect_server: str
) -> None:
    settings = pipeline_settings(
        AblationSettings, "tiny", tmp_path, str(tmp_path / "nowhere"), None
    )
    (cell, *_) = (one for one in cells(settings, "base", tmp_path) if one.question == "RQ4")
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        failed = run_cell(cell, lambda: None)
    assert failed.state == "failed"
    assert "nowhere" in failed.why
    assert (
        run_cell(replace(cell, evaluate=None, left_out="for a reason"), lambda: None).why
        == "for a reason"
    )
    scored = CellRow(
        "RQ1",
        "base model",
        "scored",
        f1=0.5,
        f1_low=0.4,
        f1_high=0.6,
        precision=0.5,
        recall=0.5,
        accuracy=0.25,
        accuracy_low=0.0,
        accuracy_high=0.5,
        scored=4,
        of=4,
        unreadable=3,
        folder="e",
    )
    files = write_ablation(
        [scored, CellRow("RQ1", "gold", "left out", "no model"), failed], "offline", tmp_path
    )
    assert [file.name for file in files] == [
        "ablation.md",
        "ablation.csv",
        "ablation.png",
        "ablation.svg",
    ]
    table = ablation_table([scored, failed])
    assert (
        "| base model | none |  | 0.500 | 0.500 | 0.500 | 0.400 to 0.600 | 0.250 | 0.000 to 0.500 |"
        " 4 of 4 | 3 | e |" in table
    )
    drawn = (tmp_path / "ablation.svg").read_text()
    assert "left out: no model" in drawn
    assert "held-out loss" not in drawn, "there is none"


def test_a_local_model_may_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    teacher = Teacher.parse(f"local:{tmp_path / 'mine' / 'model'}")
    assert (teacher.name, teacher.folder, teacher.local) == (
        "mine",
        tmp_path / "mine" / "model",
        True,
    )
    with pytest.raises(RuntimeError, match=r"no \*\.safetensors"):
        teacher.identity()
    (tmp_path / "mine" / "model" / "model.safetensors").write_bytes(b"one")
    before = teacher.identity()
    assert Teacher(model="local", folder=tmp_path / "mine").identity()["sha256"] == before["sha256"]
    with pytest.raises(ValueError, match="not both"):
        Teacher(model="local", folder=tmp_path, gguf=tmp_path / "a.gguf")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_ablation_distils_trains_serves_and_scores(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    pytest.importorskip(
        "deepspeed", reason="training is not installed (pip install 'medaction[train]')"
    )
    preset = yaml.safe_load((PIPELINES / "tiny.yaml").read_text())
    preset |= {"out": str(tmp_path / "out"), "questions": ["RQ1"]}
    preset["distill"] |= {
        "only": ["medaction-01", "medaction-03"],
        "rollouts": 1,
        "launch_points": 0,
        "teachers": ["kg-targeted"],
    }
    preset["distill"]["validation_percent"] = 0
    preset["train"] |= {"max_steps": 2, "validation_percent": 0}
    preset["evaluate"] |= {"only": ["medaction-07"], "t_max": 2}
    preset["evaluate"]["model"]["max_tokens"] = 64
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(preset))
    done = medaction(run_environment, "ablate", "--preset", tmp_path / "small.yaml")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "out" / "ablation.md").read_text()
    assert "| base model | none |" in table
    assert table.count("1 of 1") == 2  # the base model and the one that was trained
    assert (tmp_path / "out" / "ablation.png").stat().st_size > 10_000
    (model,) = (tmp_path / "out" / "models").glob("*/model/model.safetensors")
    born = model.stat().st_mtime_ns
    again = medaction(run_environment, "ablate", "--preset", tmp_path / "small.yaml")
    assert again.returncode == 0, again.stderr
    assert model.stat().st_mtime_ns == born
    assert (tmp_path / "out" / "ablation.md").read_text() == table
