"""The ledger: what became of every passage of a report."""

import json
from dataclasses import replace
from pathlib import Path

from medaction.envs.build import build_environment
from medaction.envs.ledger import passages
from medaction.envs.records import Built, CaseReport, DocumentedTest, Loss, StructuredCase
from medaction.envs.sources import read_cases
from medaction.trajectories.store import Store
from medaction.trajectories.table_rows import BuiltCase

O1 = "A 60-year-old smoker has coughed up blood for two weeks and lost 5 kg."
LEAK = "A cousin was told that he has lung adenocarcinoma."
TABLE = "Table 1: Hormones | ACTH | 98 pg/mL |"
FIGURE = "Figure 1: the ward where he was cared for."
TEXT = (
    f"{O1} {LEAK}\nCT chest: A 3 cm mass in the right upper lobe.\n{TABLE}\n{FIGURE}\nNot a "
    f"word of it."
)
TESTS = (
    DocumentedTest("CT chest", "imaging", "A 3 cm mass in the right upper lobe."),
    DocumentedTest("Hormones", "laboratory", "ACTH | 98 pg/mL"),
)
REPORT = CaseReport(
    "case-1",
    "jats",
    "A title",
    TEXT,
    licence="CC0",
    structured=StructuredCase(f"{O1} {LEAK}", TESTS, "Lung adenocarcinoma"),
    losses=(Loss("figure", 2, "no caption", "fig2.jpg"),),
)


def built() -> Built:
    outcome = build_environment(REPORT)
    assert outcome.environment, outcome.refusal
    return outcome


def test_every_passage_has_its_use_and_nothing_is_lost() -> None:
    environment = built().environment
    assert environment
    results = [f"{test.name}: {test.result}" for test in environment.menu]
    parts = list(
        passages(
            TEXT,
            environment.initial_observation,
            results,
            environment.diagnosis,
            environment.warnings,
        )
    )
    assert "".join(part.text for part in parts) == TEXT
    uses = {part.text.strip(): (part.use, part.reason) for part in parts}
    assert uses[O1] == ("observation", "")
    assert uses[LEAK] == ("nothing", "cut from the initial observation")
    assert uses["CT chest: A 3 cm mass in the right upper lobe."] == ("menu", "")
    assert uses["Not a word of it."] == ("nothing", "")


def test_sums_by_kind_are_whole_and_the_source_s_losses_stand_beside_them() -> None:
    ledger = built().ledger
    characters = [line for line in ledger if line.kind == "characters"]
    assert abs(sum(line.share for line in characters) - 1) < 0.01
    by_kind = {(line.kind, line.use): line.count for line in ledger}
    assert by_kind["table rows", "menu"] == 1
    assert by_kind["figure captions", "nothing"] == 1
    losses = [line for line in ledger if line.kind == "figure"]
    assert [(line.count, line.reason, line.sample) for line in losses] == [
        (2, "no caption", "fig2.jpg")
    ]


def test_short_passages_headings_and_empty_statements_have_their_use_or_their_reason() -> None:
    text = (
        "**Findings:**\nPale skin; Weak.\nFamily History: None provided.\nHb: low\nDiagnosis: Gout"
    )
    parts = passages(text, "He has pale skin and is weak.", ["Blood count: Hb: low"], "Gout")
    assert [(part.use, part.reason) for part in parts] == [
        ("nothing", "a heading or a mark"),
        ("observation", ""),
        ("observation", ""),
        ("nothing", "says that nothing is documented"),
        ("menu", ""),
        ("diagnosis", ""),
    ]


def test_a_section_behind_the_tests_is_left_out_with_its_reason(tmp_path: Path) -> None:
    summary = (
        "- **Patient Information:** A man of 50.\n- **Chief Complaint:** Pain of the left flank.\n"
        "- **Ancillary Tests:**\n  - Abdominal CT: A stone of 4 mm.\n"
        "- **Operation:**\n  - The removed kidney showed a small clear cell tumour.\n"
    )
    case = {"case_summary": summary, "diagnosis_results": "Kidney stone"}
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"PMC1": {"raw_case": "A stone", "generate_case": case}}))
    [report] = read_cases(path)
    assert isinstance(report, CaseReport)
    reasons = {line.reason: line.count for line in build_environment(report).ledger}
    assert reasons["left out, of a section behind the tests"] == 2, "its heading and its line"


def test_of_a_summary_the_article_behind_it_is_one_line() -> None:
    text = f"The article itself. {'More of it. ' * 12}{O1}"
    report = replace(REPORT, text=text, meta={"summary_at": str(text.index(O1))})
    ledger = build_environment(report).ledger
    [article] = [line for line in ledger if line.kind == "article characters"]
    assert article.count == text.index(O1)
    assert article.sample.endswith("…"), "what is cut says so"
    assert {line.use for line in ledger if line.kind == "characters"} == {"observation"}


def test_a_refused_case_has_a_ledger_too_and_the_store_keeps_it(tmp_path: Path) -> None:
    refused = build_environment(REPORT, min_tests=9)
    assert refused.refusal
    with Store(tmp_path / "s.duckdb") as store:
        store.add_built_cases([BuiltCase(REPORT, refused)], "settings", "run")
        store.add_built_cases([BuiltCase(REPORT, built())], "settings", "run")
        rows = store.rows("select kind, use, count from ledger")
    assert len(rows) == len(built().ledger)


def test_what_a_list_was_cut_into_and_what_two_took_over_is_not_lost() -> None:
    text = (
        "Blood tests: WBC: Normal; Imaging: Brain MRI: Unremarkable\n"
        "Mild leukopenia, raised CRP, low serum zinc levels.\n"
        "She had lost much weight and bilateral pulmonary infiltrates were seen.\n"
        "Biopsy: Normal\nNo word of this sentence, and none of that, was ever used."
    )
    results = [
        *("WBC: Normal", "Brain MRI: Unremarkable", "Leukocytes: Mild leukopenia"),
        *("CRP: raised CRP", "Zinc: low serum zinc levels", "Imaging: bilateral pulmonary "),
        "Chest imaging: bilateral pulmonary infiltrates were seen",
    ]
    parts = list(passages(text, "She had lost much weight.", results, "Gout"))
    assert "".join(part.text for part in parts) == text
    assert [part.use for part in parts] == [
        *("menu", "menu", "menu", "observation", "nothing", "nothing")
    ]


def test_a_note_that_holds_the_beginning_of_a_passage_is_its_reason() -> None:
    text = "Diagnosis was a rare disease of the left kidney, of which nobody had heard so far."
    note = f"left out, states the diagnosis: {text[:44]}"
    assert [part.reason for part in passages(text, "A man.", [], "Gout", [note])] == [
        "left out, states the diagnosis"
    ]


def test_a_figure_s_caption_is_what_stands_behind_its_label() -> None:
    text = f"{TEXT}\n\nFigure 2\n\nThe ward from the garden."
    ledger = build_environment(replace(REPORT, text=text)).ledger
    assert [
        (line.use, line.count, line.sample) for line in ledger if line.kind == "figure captions"
    ] == [("nothing", 2, FIGURE)]
    assert ("a heading or a mark", 1) in {
        (line.reason, line.count) for line in ledger if line.kind == "sentences"
    }


def test_of_an_article_what_is_known_is_told_apart_from_what_is_the_patient_s() -> None:
    known = "Lung cancer is the commonest cancer of men in many countries of the world."
    lost = "A cup of tea was offered to everybody in the room."
    text = f"A title\n\n1. Introduction\n\n{known}\n\n2. Case Report\n\n{TEXT}\n{lost}\n"
    ledger = build_environment(replace(REPORT, text=text)).ledger
    counts = {
        line.reason: line.count
        for line in ledger
        if line.kind == "characters" and line.use == "nothing"
    }
    assert counts["the title"] == len("A title")
    # The headings are of their sections.
    elsewhere = "of the abstract, or a section about what is known"
    assert counts[elsewhere] == len(known + "Introduction")
    own = (lost, "Case Report", "Not a word of it.", FIGURE)
    assert counts[""] == sum(map(len, own))
