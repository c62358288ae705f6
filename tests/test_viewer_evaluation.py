"""The viewer on two evaluations that `medaction evaluate` wrote, and on a distillation: verdicts,
marks of right and wrong, what changed, sorting, the prompt of a turn, the policy of the pages."""

import hashlib
import re
import shutil
from base64 import b64decode
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from medaction.cli.main import main
from medaction.trajectories.store import Store
from medaction.trajectories.viewer import pages, queries
from medaction.trajectories.viewer.app import app_of
from tests.conftest import SAMPLES

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an evaluation, `a`, and a distillation, `d`, of three sample cases."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "cases").mkdir()
    for number in ("01", "03", "07"):
        shutil.copy(SAMPLES / f"medaction-{number}.json", folder / "cases")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("PREFECT_API_URL", "RAY_ADDRESS"):
            patch.delenv(variable, raising=False)
        patch.setenv("MEDACTION_CALL_CACHE", str(folder / "calls"))
        patch.setenv("PREFECT_HOME", str(folder / "prefect"))
        cases = str(folder / "cases")
        command = ["evaluate", cases, "--model", "kg-targeted", "--rollouts", "1"]
        main([*command, "--out", str(folder / "a")])
        out = str(folder / "d")
        main(["distill", "--cases", cases, "--teacher", "kg-screening", "--out", out])
        yield folder


def test_an_evaluation_shows_verdicts_tests_and_truth(runs: Path) -> None:
    run = pages.ShownRun(runs / "a")
    rows = queries.judged(run.db, {}, 1).rows
    assert len(rows) == 3
    html = pages.evaluation(run, {}, 1)
    for row in rows:
        assert str(pages.Markup.escape(row["truth"])) in html
        assert row["trajectory_id"] in html
    assert html.count("✓ right") == sum(row["correct"] for row in rows)
    assert html.count("✗ wrong") == sum(not row["correct"] for row in rows)
    case = pages.case(run, "medaction-03")
    assert case
    tests = next(row for row in rows if row["case_id"] == "medaction-03")["documented"]
    for test in tests:
        sign = "✓" if test["hit"] else "✗"
        assert f"{sign} {pages.Markup.escape(test['name'])}</li>" in case


def test_an_evaluation_shows_what_was_judged_and_nothing_of_training(runs: Path) -> None:
    run = pages.ShownRun(runs / "a")
    right_of = {}
    for row in queries.judged(run.db, {}, 1).rows:
        right_of[row["case_id"]] = right_of.get(row["case_id"], 0) + bool(row["correct"])
    listed = queries.cases(run.db, {}, 1).rows
    assert {row["case_id"]: (row["right"], row["verdicts"]) for row in listed} == {
        case_id: (right, 1) for case_id, right in right_of.items()
    }
    counts = {
        (row["right"], row["verdicts"]): row["cases"] for row in queries.rows(run.db, "right runs")
    }
    assert counts == {(1, 1): sum(right_of.values()), (0, 1): 3 - sum(right_of.values())}
    html = pages.overview(run) + pages.cases(run, {}, 1) + pages.trajectories(run, {}, 1)
    html += pages.case(run, "medaction-03") or ""
    for words in ("not scored", "nothing measured yet", "kept turns", "DTC"):
        assert words not in html
    assert "DTC by turn" in pages.overview(pages.ShownRun(runs / "d"))


def test_filters_and_sorting_stand_in_the_url(runs: Path) -> None:
    client = TestClient(app_of(runs / "a"))
    wrong = client.get("/evaluation?verdict=wrong").text
    assert "✓ right" not in wrong.split("<form")[1]
    rows = queries.judged(pages.ShownRun(runs / "a").db, {"sort": "-turns"}, 1).rows
    assert [row["turns"] for row in rows] == sorted((row["turns"] for row in rows), reverse=True)
    link = re.search(r'href="(/evaluation\?[^"]*sort=turns[^"]*)"', wrong)
    assert link
    assert "verdict=wrong" in unescape(link[1]), "a sorted table keeps its filters"
    assert client.get("/evaluation?sort=turns;drop table turns").status_code == 200


def test_two_evaluations_side_by_side_show_what_changed_first(runs: Path, tmp_path: Path) -> None:
    # Right on every case in `b`; wrong on one of them in `a`.
    for name, verdicts in (("a", "case_id <> 'medaction-03'"), ("b", "true")):
        out = Path(shutil.copytree(runs / "a", tmp_path / name))
        with Store(out / "trajectories.duckdb") as store:
            store.db.execute(
                "update judgements set judgement ="
                f" json_merge_patch(judgement, json_object('correct', {verdicts}))"
                " from trajectories t where t.trajectory_id = judgements.trajectory_id"
            )
            store.publish()
    runs = tmp_path
    there = pages.ShownRun(runs / "b")
    html = pages.comparison(pages.ShownRun(runs / "a", there), there, {})
    body = html.split("<table>")[1]
    assert "<th>a<th>b<" in body, "the folders' own names: whole paths push columns off the page"
    assert body.index("medaction-03") < body.index("medaction-01") < body.index("both right")
    client = TestClient(app_of(runs / "a", runs / "b"))
    assert client.get("/comparison").status_code == 200
    assert TestClient(app_of(runs / "a")).get("/comparison").status_code == 404


def test_a_comparison_takes_the_verdicts_of_the_result_s_judge(runs: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(runs / "a", tmp_path / "a"))
    before = queries.verdicts_of(pages.ShownRun(out).db, out)
    with Store(out / "trajectories.duckdb") as store:
        for judge in ("a-judge@0", "z-judge@0"):
            store.db.execute(
                "insert into judgements select trajectory_id, protocol, ?, repeat,"
                " json_merge_patch(judgement, '{\"correct\": null}') from judgements"
                " where judge like 'offline@%'",
                [judge],
            )
        store.publish()
    assert queries.verdicts_of(pages.ShownRun(out).db, out) == before


def test_a_right_diagnosis_is_marked_and_a_wrong_one_is_not_green(runs: Path) -> None:
    run = pages.ShownRun(runs / "a")
    for row in queries.judged(run.db, {}, 1).rows:
        case = pages.case(run, row["case_id"])
        assert case
        mark = f"{'✓' if row['correct'] else '✗'} {pages.Markup.escape(row['final_diagnosis'])}"
        assert mark in case


def test_a_link_to_a_trajectory_opens_it(runs: Path) -> None:
    client = TestClient(app_of(runs / "d"))
    for path in re.findall(r'href="(/case/[^"]+open=[^"#]+)', client.get("/trajectories").text):
        html = client.get(path).text
        opened = re.findall(r'<details class="path" open id="t-(\w+)"', html)
        assert opened == [path.split("open=")[1]]


def test_the_prompt_of_a_turn_is_the_one_of_the_training_record(runs: Path) -> None:
    import polars as pl

    client = TestClient(app_of(runs / "d"))
    records = pl.concat(map(pl.read_parquet, (runs / "d" / "dataset").glob("*.parquet")))
    assert len(records)
    for record in records.iter_rows(named=True):
        page = client.get(f"/prompt/{record['trajectory_id']}/{record['turn']}")
        text = unescape(page.text)
        for message in record["messages"][:-1]:
            assert message["content"] in text
    assert client.get("/prompt/nothing/1").status_code == 404


def test_no_script_but_ours_can_run(runs: Path) -> None:
    html = TestClient(app_of(runs / "d")).get("/").text
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert policy[1].startswith("default-src 'none'")
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    allowed = re.search(r"script-src 'sha256-([^']+)'", unescape(policy[1]))
    assert script
    assert allowed
    assert hashlib.sha256(script[1].encode()).digest() == b64decode(allowed[1])
