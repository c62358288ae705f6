"""`medaction envs`: stage 1 alone, what its checks found, and its pictures."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import SAMPLES
from tests.openai_server import Asked, openai_server
from tests.runs import medaction, rows, sample_cases
from tests.test_envs_sources_more import NOTE


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, run_environment: dict[str, str]
) -> tuple[Path, str]:
    """The folder of a run of stage 1 over a good case, a leaking one and a broken file, and what it
    printed."""
    folder = tmp_path_factory.mktemp("environments")
    cases, out = sample_cases(folder / "cases", 3, 4), folder / "out"
    leaking = json.loads((cases / "medaction-04.json").read_text())
    leaking["tests"] = leaking["tests"][:1]
    (cases / "medaction-04.json").write_text(json.dumps(leaking))
    (cases / "medaction-99.xml").write_text("<article><front>")
    process = medaction(
        run_environment, "envs", "build", "--cases", cases, "--out", out, "--min-tests", "2"
    )
    assert process.returncode == 0, process.stderr
    return out, process.stdout


def test_every_check_of_every_case_is_stored_and_printed(
    built: tuple[Path, str], run_environment: dict[str, str]
) -> None:
    out, printed = built
    assert rows(out, "select case_id, reason from cases order by case_id") == [
        ("medaction-03", None),
        ("medaction-04", "min_tests"),
    ]
    assert rows(
        out,
        "select passed, figure, threshold from checks where name = 'min_tests' and "
        "case_id = 'medaction-04'",
    ) == [(False, 1.0, 2.0)]
    assert rows(
        out,
        "select count(distinct name) >= 8 from checks where case_id = 'medaction-03' and passed",
    ) == [(True,)]
    again = medaction(run_environment, "envs", "check", "--out", out)
    assert again.returncode == 0, again.stderr
    for text in (printed, again.stdout):
        assert "min_tests" in text
        assert "medaction-04" in text
        assert "medaction-99" in text, "what could not be read is listed too"
    assert "select" in (out / "checks.md").read_text()


def test_a_dry_run_begins_nothing_and_json_is_all_that_is_printed(
    built: tuple[Path, str], tmp_path: Path, run_environment: dict[str, str]
) -> None:
    cases, out = sample_cases(tmp_path / "cases", 3), tmp_path / "out"
    (cases / "medaction-99.xml").write_text("<article><front>")
    build = ("envs", "build", "--cases", cases, "--out", out, "--engine", "local", "--json")
    dry = medaction(run_environment, *build, "--dry-run")
    assert json.loads(dry.stdout) == {"cases": 1, "files_that_cannot_be_read": 1}
    assert not (out / "trajectories.duckdb").exists()
    done = medaction(run_environment, *build)
    assert json.loads(done.stdout)["cases"][0] == {"outcome": "environment", "cases": 1}

    refused, _ = built
    runs = rows(refused, "select * from runs")
    again = ("retry", "--out", refused, "--case", "medaction-04", "--dry-run")
    dry = medaction(run_environment, *again, "--json")
    assert (dry.returncode, json.loads(dry.stdout)) == (0, {"cases": ["medaction-04"]})
    assert "medaction-04" in medaction(run_environment, *again).stdout
    assert rows(refused, "select * from runs") == runs


def test_a_refused_case_is_built_again_under_other_settings(
    built: tuple[Path, str], run_environment: dict[str, str]
) -> None:
    out, _ = built
    cases = out.parent / "cases"
    (cases / "medaction-99.xml").unlink()
    process = medaction(
        run_environment, "envs", "build", "--cases", cases, "--out", out, "--min-tests", "1"
    )
    assert process.returncode == 0, process.stderr
    assert rows(out, "select count(*) from cases where environment_id is not null") == [(2,)]
    assert rows(
        out, "select count(*) from failures where stage = 'environment' and resolved is null"
    ) == [(0,)]


def test_a_benchmark_s_cases_are_to_be_evaluated_and_others_distilled(
    built: tuple[Path, str], tmp_path: Path, run_environment: dict[str, str]
) -> None:
    assert "Play: medaction distill --cases" in built[1]
    cases, out = tmp_path / "DiagBench.json", tmp_path / "out"
    cases.write_text(json.dumps({"1": NOTE}))
    line = f"medaction evaluate {cases} --out {out}"
    local = ("--engine", "local")
    process = medaction(run_environment, "envs", "build", "--cases", cases, "--out", out, *local)
    assert f"Play: {line} --model ..." in process.stdout, process.stderr
    playing = (*line.split()[1:], "--model", "kg-screening", "--rollouts", "1", *local)
    evaluated = medaction(run_environment, *playing)
    assert evaluated.returncode == 0, evaluated.stderr
    result = json.loads((out / "result.json").read_text())
    assert {row["case_id"] for row in result["rows"]} == {"1"}


def test_the_composition_is_drawn(built: tuple[Path, str], run_environment: dict[str, str]) -> None:
    out, _ = built
    process = medaction(run_environment, "envs", "plot", "--out", out)
    assert process.returncode == 0, process.stderr
    pictures = [Path(line) for line in process.stdout.split()]
    assert {picture.suffix for picture in pictures} == {".png", ".svg"}
    assert all(picture.stat().st_size > 5000 for picture in pictures)


def test_nothing_to_export_without_rollouts(
    built: tuple[Path, str], run_environment: dict[str, str]
) -> None:
    refused = medaction(run_environment, "export", "--out", built[0])
    assert refused.returncode == 1
    assert "medaction distill" in refused.stderr


def test_articles_without_sections_go_through_the_extractor(
    tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """The scripted model says what the sample's own JSON says; one of the two articles gets replies
    that are no use."""
    cases, out = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    for number in ("01", "02"):
        shutil.copy(SAMPLES / f"medaction-{number}.xml", cases)
    sample = json.loads((SAMPLES / "medaction-01.json").read_text())
    title = ElementTree.parse(SAMPLES / "medaction-01.xml").findtext(
        "front/article-meta/title-group/article-title"
    )

    def extract(request: Asked, _number: int) -> str:
        if f"Title: {title}" not in request.body["messages"][1]["content"]:
            return "I cannot help with that."
        if "tests" in request.body["response_format"]["json_schema"]["schema"]["properties"]:
            tests = [{**test, "aliases": test.get("aliases", [])[:6]} for test in sample["tests"]]
            return json.dumps({"tests": tests})
        return json.dumps(
            {
                "initial_observation": sample["initial_observation"],
                "diagnosis": sample["diagnosis"],
                "diagnosis_synonyms": [],
                "rare_disease": False,
                "body_system": "unknown",
                "disease_type": "Infections",
            }
        )

    with openai_server(extract) as server:
        extractor = f"openai/x@{server.url};usd_per_million_prompt_tokens=10000"
        build = ("envs", "build", "--cases", cases, "--out", out, "--extractor")
        process = medaction(run_environment, *build, extractor)
        requests = len(server.asked)
        shutil.copy(SAMPLES / "medaction-03.xml", cases)
        poor = medaction(run_environment, *build, f"{extractor};budget_usd=1")
        assert len(server.asked) == requests, "what an earlier run spent counts"
        assert poor.returncode == 1, poor.stderr
    unpaid = rows(out, "select reason from cases where case_id = 'medaction-03'")
    assert unpaid == [("BudgetSpent",)]
    assert process.returncode == 0, process.stderr
    cases_built = rows(
        out,
        "select case_id, reason, calls > 0, prompt_tokens > 0 from cases"
        " where case_id < 'medaction-03' order by case_id",
    )
    assert cases_built == [
        ("medaction-01", None, True, True),
        ("medaction-02", "extraction_failed", True, True),
    ]
    ((menu,),) = rows(out, "select menu from environments")
    text = "".join(ElementTree.parse(SAMPLES / "medaction-01.xml").getroot().itertext())
    assert len(menu) >= 0.8 * len(sample["tests"])
    for test in menu:
        assert " ".join(test["result"].split()) in " ".join(text.split())
