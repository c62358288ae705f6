"""Labels: given in the viewer while a run holds its store, exported, a filter of the dataset, and
the truth for judges."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from medaction.cli.main import main
from medaction.trajectories.labels import FILE, Label, add_label, history, labels, rejected
from medaction.trajectories.store import Store
from medaction.trajectories.viewer import pages, queries
from medaction.trajectories.viewer.app import app_of
from medaction.words.errors import MedactionError
from tests.test_viewer_evaluation import runs

assert runs, "the fixture"
OWN = {"origin": "http://testserver"}
EARLY, LATE = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"


def test_the_newest_opinion_counts_and_a_comment_leaves_it(tmp_path: Path) -> None:
    add_label(tmp_path, Label("turn", "c", "accept", EARLY, "t", 1))
    add_label(tmp_path, Label("turn", "c", "reject", LATE, "t", 1))
    add_label(
        tmp_path, Label("turn", "c", "comment", LATE, "t", 1, comment="no «d-dimer»\u2028here")
    )
    add_label(tmp_path, Label("environment", "c2", "reject", LATE))
    (turn, environment) = labels(tmp_path)
    assert (turn.opinion, turn.comment) == ("reject", "no «d-dimer»\u2028here")
    assert environment.opinion == "reject"
    assert rejected(tmp_path) == ({"c2"}, {("t", 1)})
    assert len(list(history(tmp_path))) == 4
    assert labels(tmp_path / "nowhere") == []


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"kind": "dream"}\n')
    with pytest.raises(MedactionError, match=r"labels\.jsonl:1: no label"):
        labels(tmp_path)


@pytest.mark.long
def test_a_label_is_given_while_a_run_holds_the_store(runs: Path) -> None:
    out = Path(shutil.copytree(runs / "d", runs / "labelled"))
    client = TestClient(app_of(out))
    rows = queries.trajectories(pages.ShownRun(out).db, {}, 1).rows
    row = next(row for row in rows if row["parent_id"] is None)  # it has its first turn itself
    form = {"kind": "turn", "case_id": row["case_id"], "trajectory_id": row["trajectory_id"]}
    form |= {"number": "1", "opinion": "reject", "comment": "<b>no</b>", "by": "Dr. A"}
    with Store(out / "trajectories.duckdb"):
        answer = client.post("/label", data=form, headers=OWN, follow_redirects=False)
    assert answer.status_code == 303
    assert labels(out)[0].comment == "<b>no</b>"
    page = client.get(f"/case/{row['case_id']}?open={row['trajectory_id']}").text
    assert "rejected</span> &lt;b&gt;no&lt;/b&gt;" in page
    listed = client.get("/labels").text
    assert "Dr. A" in listed
    assert f">{row['trajectory_id']}<" in listed
    # From elsewhere, on what is not there, or no opinion: nothing is stored.
    assert client.post("/label", data=form).status_code == 403
    elsewhere = {"origin": "http://evil.example"}
    assert client.post("/label", data=form, headers=elsewhere).status_code == 403
    for wrong in ({"case_id": "nosuch"}, {"trajectory_id": "nosuch"}, {"opinion": "perhaps"}):
        assert client.post("/label", data=form | wrong, headers=OWN).status_code == 400
    assert len(labels(out)) == 1


@pytest.mark.long
def test_what_is_rejected_is_no_record_and_labels_are_exported(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(runs / "d", runs / "filtered", symlinks=True))
    main(["export", "--out", str(out)])
    before = pl.concat(map(pl.read_parquet, (out / "dataset").glob("*.parquet")))
    turn = before.row(0, named=True)
    case_id = next(id_ for id_ in before["case_id"].unique().sort() if id_ != turn["case_id"])
    place = (turn["trajectory_id"], turn["turn"])
    add_label(out, Label("turn", turn["case_id"], "reject", LATE, *place))
    add_label(out, Label("environment", case_id, "reject", LATE, comment="a dose is wrong"))
    main(["export", "--out", str(out)])
    after = pl.concat(map(pl.read_parquet, (out / "dataset").glob("*.parquet")))
    lost = 1 + len(before.filter(case_id=case_id))
    assert len(after) == len(before) - lost
    assert case_id not in after["case_id"]
    capsys.readouterr()
    main(["labels", "--out", str(out), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["kind"] for row in rows] == ["turn", "environment"]


@pytest.mark.long
def test_labels_are_the_truth_for_judges(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path(shutil.copytree(runs / "a", runs / "judged"))
    rows = queries.judged(pages.ShownRun(out).db, {}, 1).rows
    for row, opinion in zip(rows, ("accept", "accept", "reject"), strict=True):
        judge = f"{row['judge_key']} #{row['repeat']}"
        place = (row["trajectory_id"], 0, judge)
        add_label(out, Label("verdict", row["case_id"], opinion, LATE, *place))  # type: ignore[arg-type]
    main(["labels", "--out", str(out)])
    words = capsys.readouterr()
    assert words.out.startswith("kind,case_id,opinion")
    assert "clinicians accepted 2 of 3 verdicts (95 % interval 0.21 to 0.94)" in words.err
