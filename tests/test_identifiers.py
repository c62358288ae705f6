"""The lint for what may name a person: each kind in its forms, and what only looks like one."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from medaction.cli.main import medaction
from medaction.envs.identifiers import IDENTIFIER_FORMS, identifiers_in
from tests.conftest import SAMPLES

WAYS = [
    ("date of birth", "DOB 04/03/1961"),
    ("date of birth", "She was born on 3 March 1961."),
    ("date with its day", "admitted on March 3rd, 2021"),
    ("date with its day", "seen on 12.05.2020"),
    ("date with its day", "2021-03-14: CT of the chest"),
    ("age over 89", "A 93-year-old woman"),
    ("name after a title", "Mr John Doe came with fever."),
    ("name after a title", "referred by Dr. A. Meier"),
    ("telephone or fax number", "Tel.: +49 89 1234 5678"),
    ("telephone or fax number", "call (030) 555-1234"),
    ("mail address", "write to j.doe@example.org"),
    ("social security number", "SSN 123-45-6789"),
    ("record number", "MRN: 00412-77"),
    ("record number", "Hospital number 7781234"),
    ("web address", "see www.example.org/case"),
]


@pytest.mark.parametrize(("kind", "text"), WAYS)
def test_a_way_to_name_a_person_is_found(kind: str, text: str) -> None:
    assert [found.kind for found in identifiers_in(text)] == [kind]


def test_every_kind_has_a_way() -> None:
    assert {kind for kind, _ in WAYS} == IDENTIFIER_FORMS.keys()


@pytest.mark.parametrize(
    "text",
    [
        "Platelets were 210 x 10^9/L, blood pressure 120/80 mmHg, pH 7.35.",
        "On day 3 a CT of T2-5 was done; the 64-year-old man had Down syndrome.",
        "Case 2: 250-300 mg twice a day since 2019, 1.5-2.5 cm.",
        "The record of this patient was reviewed. MS had been suspected.",
    ],
)
def test_what_a_report_says_anyway_is_no_finding(text: str) -> None:
    assert not list(identifiers_in(text))


def test_the_command_counts_and_withholds(tmp_path: Path) -> None:
    clean = CliRunner().invoke(medaction, ["envs", "lint", "--cases", str(SAMPLES)])
    assert (clean.exit_code, clean.output) == (0, "0 of 12 reports have a finding\n")
    case = json.loads((SAMPLES / "medaction-01.json").read_text())
    told = "Mrs Erika Mustermann (MRN 4711007) came with a cough. " + case["initial_observation"]
    (tmp_path / "named.json").write_text(json.dumps(case | {"initial_observation": told}))
    command = ["envs", "lint", "--cases", str(tmp_path)]
    found = CliRunner().invoke(medaction, command)
    assert found.exception is not None
    assert "record number: 1; the first: medaction-01, line 2" in found.output
    assert "Mustermann" not in found.output
    (tmp_path / "export.json").write_text('{"patient": {"name": "Erika Mustermann"}}')
    unread = CliRunner().invoke(medaction, command)
    assert "could not be read was not looked at: 1 " in str(unread.exception), (
        "what was not seen did not pass"
    )
    lines = CliRunner().invoke(medaction, [*command, "--json"]).stdout.splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"record number", "name after a title"}
