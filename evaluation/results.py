"""The result of an evaluation: a JSON file with settings, versions, judges, scores, subsets and a
row a trajectory; and its table."""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from medaction.envs.orders import single_tests
from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.agreement import agreement
from medaction.evaluation.correction import corrected_accuracy, measured_judge
from medaction.evaluation.costs import accuracy_by_cost, cost_of, price_of, usd_a_case
from medaction.evaluation.criteria import criteria_of, criteria_table
from medaction.evaluation.floor import Floor
from medaction.evaluation.judging import Judgement
from medaction.evaluation.scores import MEASURES, Score, measures, score_table
from medaction.trajectories.files import RESULT
from medaction.trajectories.queries import SCORES_BY_JUDGE
from medaction.trajectories.records import Trajectory
from medaction.words.markdown import markdown_table, number, section, span

FORMAT = "medaction-evaluation/1"

HEADINGS = {
    "precision": "Precision",
    "recall": "Recall",
    "f1_of_means": "F1 (of mean P and mean R)",
    "mean_f1": "F1 (mean over cases)",
    "accuracy": "Diagnosis accuracy",
}

QUERY = f"""\
with judged as (
{indent(SCORES_BY_JUDGE, "    ")}
)
select sample as run, avg(precision) as precision, avg(recall) as recall,
    avg(correct::integer) as accuracy, count(*) as judged
from judged join current_trajectories using (trajectory_id)
where teacher = '{{model}}' and settings_hash = '{{settings_hash}}' and protocol = '{{protocol}}'
    and judge = '{{judge}}' and sample < {{runs}}{{cases}}
group by run order by run"""
"""Per run over the judged trajectories, each by all its repeats; `cases` is a condition where the
result is of some cases alone. Rollouts that failed by the model's fault count as 0 in the result
besides."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One row of a result: a rollout that was to be played, its score, and what it took."""

    score: Score
    trajectory: Trajectory | None


MENU_SIZES = ("1 to 3", "4 to 6", "7 to 10", "11 and more")
"""Of a menu, in documented tests."""


def subsets_of(environment: ClinicalEnvironment) -> dict[str, str]:
    """The subsets that a case belongs to: rarity, body system, disease type, number of documented
    tests."""
    labels = {True: "rare", False: "not rare", None: "not told"}
    return {
        "rarity": labels[environment.rare],
        "body system": environment.body_system or "not told",
        "disease type": environment.disease_type or "not told",
        "documented tests": MENU_SIZES[bisect_left((3, 6, 10), len(environment.menu))],
    }


def result_of(
    about: Mapping[str, Any],
    environments: Sequence[ClinicalEnvironment],
    trajectories: Sequence[ResultRow],
    runs: int,
    judgements: Mapping[str, Mapping[tuple[str, int], Judgement]],
    floor: Floor | None = None,
) -> dict[str, Any]:
    """The whole result as JSON values. `about` says what was evaluated and how; `judgements`: judge
    and repeat ('gpt-4o@1f2e #0') -> (case, run) -> judgement; `floor`: what constant orders score
    on these cases."""
    groups = {world.case_id: subsets_of(world) for world in environments}
    known = measured_judge(about["judge"])
    has_examiner = about["answers"].startswith("examiner ")
    by_case = {world.case_id: world for world in environments}
    rows = [
        _row_of_rollout(row, by_case[row.score.case_id], has_examiner) | groups[row.score.case_id]
        for row in trajectories
    ]
    judged = [(row["usd"], row["correct"]) for row in rows if row["correct"] is not None]
    scores = [row.score for row in trajectories]
    turns = [len(row.trajectory.turns) for row in trajectories if row.trajectory]
    played = [turn for row in trajectories if row.trajectory for turn in row.trajectory.turns]
    tests = [len(turn.tests) for turn in played if turn.tests]  # of ordering turns
    return {
        "format": FORMAT,
        **about,
        "scores": [asdict(measure) for measure in measures(scores, list(groups), runs)],
        "judge_measured": known
        and asdict(known) | {"sensitivity": known.sensitivity, "specificity": known.specificity},
        "accuracy_corrected": known
        and asdict(corrected_accuracy(score_table(scores, list(groups), runs), known)),
        "floor": floor and asdict(floor),
        # Counted by reason, beside the scores: what could not be read is never inside them.
        "not_scored": Counter(
            score.note for score in scores if score.correct is None or score.precision is None
        ).most_common(),
        "play": {"turns_a_case": _mean(turns), "tests_an_ordering_turn": _mean(tests)},
        "agreement": _agreements(judgements),
        "subsets": list(_subsets(groups, scores, runs)),
        "cost": {"usd_a_case": usd_a_case(rows), "accuracy_by_usd": accuracy_by_cost(judged)},
        "criteria": criteria_table(rows),
        "rows": rows,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _subsets(groups: Mapping[str, Mapping[str, str]], scores: Sequence[Score], runs: int) -> Any:
    for kind in ("rarity", "body system", "disease type", "documented tests"):
        members: dict[str, list[str]] = {}
        for case_id, case_ids in groups.items():
            members.setdefault(case_ids[kind], []).append(case_id)
        for value, cases in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
            subset = [asdict(measure) for measure in measures(scores, cases, runs)]
            yield {"subset": kind, "value": value, "cases": len(cases), "scores": subset}


def _row_of_rollout(
    row: ResultRow, environment: ClinicalEnvironment, has_examiner: bool
) -> dict[str, Any]:
    score, trajectory = row.score, row.trajectory
    # Every row has every column, also that of a rollout which failed.
    unplayed = {"decisive": None, "needless_procedures": 0}
    orders = [test for turn in trajectory.turns for test in turn.tests] if trajectory else []
    return {
        "case_id": score.case_id,
        "run": score.run,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "correct": score.correct,
        "note": score.note,
        "trajectory_id": trajectory.trajectory_id if trajectory else None,
        "outcome": trajectory.outcome if trajectory else "failed",
        "turns": len(trajectory.turns) if trajectory else 0,
        "tests": len(single_tests(orders)),
        "usd": cost_of(orders),
        "invasiveness": max(
            (price_of(test).invasiveness for test in single_tests(orders)), default=0
        ),
        "diagnosis": trajectory.final_diagnosis if trajectory else None,
        **(criteria_of(environment, trajectory, has_examiner) if trajectory else unplayed),
    }


def _agreements(
    judgements: Mapping[str, Mapping[tuple[str, int], Judgement]],
) -> list[dict[str, Any]]:
    """Of different judges (the first repeat of each), and of the repeats of each judge.

    Apart, because a judge agrees with itself: two unrelated judges, three repeats each, would
    reach an alpha of 0.41 together.
    """
    repeats: dict[str, list[str]] = {}
    for rater in judgements:
        # 'gpt-4o@1f2e #0' is the first repeat of gpt-4o@1f2e.
        repeats.setdefault(rater.rpartition(" #")[0] or rater, []).append(rater)
    # First the judges with each other, then each one with itself.
    groups = [[raters[0] for raters in repeats.values()], *repeats.values()]
    rows = []
    for raters in groups:
        if len(raters) > 1:
            rows += _agreement_rows(raters, [judgements[rater] for rater in raters])
    return rows


def _agreement_rows(
    raters: Sequence[str], columns: Sequence[Mapping[tuple[str, int], Judgement]]
) -> list[dict[str, Any]]:
    """Their diagnosis verdicts, and their verdicts on documented tests where these are the same."""
    places = sorted(set().union(*columns))
    verdicts = [
        [column[place].correct if place in column else None for place in places]
        for column in columns
    ]
    hits: list[list[bool | None]] = [[] for _ in columns]
    for place in places:
        lists = [column[place].tests for column in columns if place in column]
        names = {tuple(name for name, _ in tests.documented) for tests in lists if tests}
        # Extracted lists differ from judge to judge: then there are no common items.
        if len(names) != 1 or len(lists) < len(columns) or None in lists:
            continue
        for row, tests in zip(hits, lists, strict=True):
            row += [hit for _, hit in tests.documented] if tests else []
    return [
        {"on": "diagnosis", "raters": list(raters), **asdict(agreement(verdicts))},
        {"on": "documented tests", "raters": list(raters), **asdict(agreement(hits))},
    ]


# --- files and tables -------------------------------------------------------------------


Share = Annotated[float, Field(ge=0, le=1)]


class _Row(BaseModel, strict=True):
    case_id: str
    run: int
    precision: Share | None
    recall: Share | None
    f1: Share | None
    correct: bool | None
    usd: float


class _Result(BaseModel, strict=True):
    """What a file must have to be compared: others may have written or changed it."""

    model: str
    benchmark: str
    protocol: str
    judge: str
    runs: int
    scores: list[dict[str, Any]]
    rows: list[_Row]


def write_result(result: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write result.json and result.md; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / RESULT, folder / "result.md"
    for file, text in zip(
        files, (json.dumps(result, indent=1, ensure_ascii=False), result_table(result)), strict=True
    ):
        # Whole or not at all: the viewer may read it meanwhile.
        draft = file.with_suffix(file.suffix + ".part")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(file)
    return files


def read_result(path: Path) -> dict[str, Any]:
    """A result file, or the one in a folder. Raises ValueError naming file and fault."""
    file = path / RESULT if path.is_dir() else path
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(
            f"{file}: there is no such result; `medaction evaluate --out FOLDER` writes"
            " FOLDER/result.json"
        ) from None
    # Brackets nested a thousand deep end in a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not a JSON file: {error}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ValueError(
            f"{file}: not a result of this version (format {FORMAT}); run `medaction evaluate` on"
            " its folder again"
        )
    try:
        _Result.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        raise ValueError(
            f"{file}: {place}: {fault['msg']}; run `medaction evaluate` on its folder again"
        ) from None
    return value


def result_table(result: Mapping[str, Any]) -> str:
    """The result as Markdown: what was evaluated, the scores with n scored of n, the subsets, and
    the query behind them."""
    cases = result["cases"]
    refused = ", ".join(f"{count} {reason}" for reason, count in cases["refused"]) or "none"
    lines = [
        f"# {result['model']}: {result['protocol']}",
        "",
        f"Judge: **{result['judge']}**. {result['runs']} runs of {cases['environments']}"
        f" environments, T_max {result['t_max']}."
        f" {cases['read']} cases were read; refused by the checks of stage 1: {refused}.",
        "Intervals: 95 %, bootstrap over cases. SD: over runs. Unreadable: the model's reply could"
        " not be read, which counts as wrong unless the protocol drops it.",
        "",
        *markdown_table(
            ["Measure", "Mean", "SD", "95 % interval", "scored of n", "unreadable"],
            [_cells(row) for row in result["scores"]],
        ),
    ]
    lines += ["", _about_judge(result)]
    # A result that was written before there were any has neither floor nor cost.
    if floor := result.get("floor"):
        lines.append(
            f"Floor: {', '.join(floor['orders']) or 'no orders'}, for every patient the same, score"
            f" precision {floor['precision']:.3f}, recall {floor['recall']:.3f} and F1"
            f" {floor['f1_of_means']:.3f} (the best such orders, chosen on these cases)."
        )
    if (cost := result.get("cost")) and cost["usd_a_case"] is not None:
        by_usd = (f"{share:.3f} up to {usd:,.0f} $" for usd, share in cost["accuracy_by_usd"])
        lines.append(
            f"Ordered tests: {cost['usd_a_case']:,.0f} $ a case (`evaluation/costs.py`). Share of"
            f" all rollouts that are right by what they cost: {', '.join(by_usd)}."
        )
    lines += _about_criteria(result)
    if result["not_scored"]:
        rows = [[note or "no judgement yet", str(count)] for note, count in result["not_scored"]]
        lines += ["", "Not scored:", "", *markdown_table(["why", "trajectories"], rows)]
    if result["agreement"]:
        rows = []
        for row in result["agreement"]:
            figures = [str(row["items"]), number(row["raw"]), number(row["alpha"])]
            rows.append([", ".join(row["raters"]), row["on"], *figures])
        headings = ["agreement of", "verdicts on", "items", "raw", "Krippendorff's alpha"]
        lines += ["", *markdown_table(headings, rows)]
    rows = []
    for subset in result["subsets"]:
        by_name = {row["name"]: row for row in subset["scores"]}
        values = [number(by_name[name]["mean"]) for name in MEASURES]
        unreadable = unreadable_of(by_name["accuracy"])
        rows.append([subset["subset"], subset["value"], str(subset["cases"]), *values, unreadable])
    headings = ["Subset", "", "cases", *(HEADINGS[name] for name in MEASURES), "unreadable"]
    lines += section("Subsets", markdown_table(headings, rows))
    lines += section("Recomputed from the store", ["```sql", result["query"], "```"])
    return "\n".join(lines)


def _about_judge(result: Mapping[str, Any]) -> str:
    """The judge's own figures, and the accuracy corrected by them, beside the raw one above."""
    known, corrected = result.get("judge_measured"), result.get("accuracy_corrected")
    if not known or not corrected:
        return "This judge's sensitivity and specificity are not known; nothing is corrected."
    return (
        f"The judge's sensitivity is {known['sensitivity']:.2f} ({known['right']} right answers),"
        f" its specificity {known['specificity']:.2f} ({known['wrong']} wrong ones), on"
        f" {known['on']}. Diagnosis accuracy corrected by them (Rogan-Gladen):"
        f" **{number(corrected['accuracy'])}**, 95 % interval"
        f" {span(corrected['low'], corrected['high'])}."
    )


def _about_criteria(result: Mapping[str, Any]) -> list[str]:
    table = result.get("criteria")  # none in a result that was written before there were any
    if not table or not table["rollouts"]:
        return []
    decisive = (
        f" of {table['with_a_decisive_test']} rollouts whose case documents a result that names the"
        f" diagnosis, the share that got it is {number(table['decisive'])}, of the"
        f" {table['right']} right ones among them"
        f" {number(table['right_and_decisive']) or 'not known'}."
    )
    return [
        "From the reports (`evaluation/criteria.py`):"
        f"{decisive if table['with_a_decisive_test'] else ''} Safety: the share of all"
        f" {table['rollouts']} rollouts with a procedure that the report does not document is"
        f" {number(table['needless_procedure'])}."
    ]


def _cells(measure: Mapping[str, Any]) -> list[str]:
    mean, sd, interval = measure["mean"], measure["sd"], span(measure["low"], measure["high"])
    scored = f"{measure['scored']} of {measure['of']}"
    name = HEADINGS[measure["name"]]
    return [name, number(mean), number(sd), interval, scored, unreadable_of(measure)]


def unreadable_of(measure: Mapping[str, Any]) -> str:
    """'n of m' trajectories whose reply could not be read; empty in a result that was written
    before they were counted."""
    return f"{measure['unreadable']} of {measure['of']}" if "unreadable" in measure else ""
