"""What `import medaction` offers."""

import ast
from pathlib import Path

import pytest

import medaction
from medaction.envs.sources import SAMPLES
from medaction.llm.replies import MalformedReply

REPLY = """{"reasoning": "Fever and cough, so far without a test.",
"differential": [{"diagnosis": "Pneumonia", "confidence": 60}, {"diagnosis": "Asthma",
"confidence": 20}], "pivot": "An infiltrate?", "action": %s}"""


def test_type_checkers_and_editors_see_the_same_names() -> None:
    tree = ast.parse(Path(medaction.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        item.name: node.module.removeprefix("medaction.")
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for item in node.names
    }
    assert seen == medaction._HOME


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        medaction.nonsense  # noqa: B018


def test_a_notebook_builds_plays_and_measures_in_any_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = next(medaction.read_cases(SAMPLES))
    assert isinstance(report, medaction.CaseReport)
    environment = medaction.build_environment(report).environment
    assert environment
    episode = medaction.Episode(environment, medaction.oracle_of(environment))
    with pytest.raises(MalformedReply):
        episode.step("no reply at all")
    order = f'{{"order_tests": ["{environment.menu[0].name}"]}}'
    assert episode.step(REPLY % order).answers[0].results[0].text == environment.menu[0].result
    episode.step(REPLY % f'{{"final_diagnosis": "{environment.diagnosis}"}}')
    assert episode.outcome == "diagnosed"
    first, last = episode.rewards(medaction.linkers())
    assert first.dtc is not None
    assert last.documented is None
