"""A score is about what a model says: the same content in another form has the same score, and what
could not be read is counted beside it."""

import json
from pathlib import Path

import pytest

from medaction.evaluation.results import read_result
from tests.openai_server import Asked, Reply, openai_server
from tests.other_servers import WAYS, question
from tests.runs import medaction, sample_cases

OTHER_CONTENT = ("chinese", "joined_tests", "another_final_diagnosis")
"""Ways that say something else, and so may have another score."""

UNREADABLE = ("words", "refusal_text", "both_actions", "refusal")
"""Ways in which the model never writes what could be read without guessing, or will not answer."""


PARTS = 3
"""Evaluations, of at most 64 rollouts each."""


@pytest.mark.parametrize("part", range(PARTS))
def test_a_score_does_not_depend_on_the_form_and_what_is_unreadable_stands_beside_it(
    part: int, tmp_path: Path, run_environment: dict[str, str]
) -> None:
    """Each form is a rollout of one case."""
    playing = [name for name, way in WAYS.items() if not way.says and way.requests == 4]
    forms = [name for name in playing if name not in ("ok", *OTHER_CONTENT)]
    names = ["ok", *forms[part::PARTS], *UNREADABLE]
    ways_by_rollout: dict[int, str] = {}

    def script(asked: Asked, number: int) -> Reply:
        """Each rollout has its own seed, to which the turn's number is added; a repair asks with
        the next seed and its turn's prompt."""
        turn = int(question(asked).split("This is turn ")[-1].split()[0])
        repairs = sum(row["role"] == "user" for row in asked.body["messages"]) - 1
        rollout = asked.body["seed"] - turn - repairs
        known = next((seed for seed in ways_by_rollout if 0 <= rollout - seed <= 3), rollout)
        name = ways_by_rollout.setdefault(known, names[len(ways_by_rollout) % len(names)])
        return WAYS[name].answer(asked, number)

    with openai_server(script) as server:
        done = medaction(
            run_environment, "evaluate", sample_cases(tmp_path / "cases", 1),
            "--out", tmp_path / "out", "--model", f"openai/m@{server.url}",
            "--rollouts", len(names), "--engine", "local",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(ways_by_rollout.values()) == sorted(names)
    result = read_result(tmp_path / "out")
    read = [row for row in result["rows"] if row["trajectory_id"]]
    scores = {
        json.dumps([row[key] for key in ("precision", "recall", "f1", "correct", "diagnosis")])
        for row in read
    }
    assert len(scores) == 1, scores
    assert len(read) == len(names) - len(UNREADABLE)
    share = f"{len(UNREADABLE)} of {len(names)}"
    text = (tmp_path / "out" / "result.md").read_text()
    for table in (text, done.stdout):
        [line] = [line for line in table.splitlines() if line.startswith("| Diagnosis accuracy")]
        assert line.split("|")[-2].strip() == share
    [subset] = [line for line in text.splitlines() if line.startswith("| rarity")]
    assert subset.split("|")[-2].strip() == share
    assert {row["note"] for row in result["rows"] if not row["trajectory_id"]} == {
        f"the model gave no usable reply ({error})" for error in ("MalformedReply", "ModelDeclined")
    }
    assert [row["mean"] for row in result["scores"] if row["name"] == "recall"] == [
        pytest.approx(sum(row["recall"] for row in read) / len(names))
    ]
