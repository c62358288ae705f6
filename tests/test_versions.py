"""Whatever decides a result changes its version; how the code is written does not."""

import ast
import itertools
import sys
from pathlib import Path

import pytest

from medaction.envs import build, extraction
from medaction.kg import linking, open_graphs
from medaction.llm.call_cache import reply_key
from medaction.trajectories.table_rows import report_hash
from medaction.words.versions import code_of, constants_of, version_of
from tests.records import report, small_tree

MODULE = '''"""A rule."""
import re
THRESHOLD = 0.78
"""Measured."""
PATTERN = re.compile("a|b")
TABLE = {("a", 1): {"x"}}
def rule(value):
    """Doc."""
    return value > THRESHOLD
'''

NUMBERS = itertools.count()


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """(constants' version, code's version) of a module with this text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def version(text: str) -> tuple[str, str]:
        name = f"rule_module_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(text)
        constants = version_of(list(constants_of(name).values()))
        del sys.modules[name]
        return constants, version_of(code_of(name))

    return version


def test_a_docstring_a_comment_and_the_layout_change_no_version(version):
    again = MODULE.replace("A rule.", "A rule, in other words.").replace("Doc.", "More.")
    again = again.replace('"""Measured."""', '"""Measured again."""\n# why\n\n')
    assert version(again) == version(MODULE)


@pytest.mark.parametrize("change", [("0.78", "0.8"), ("a|b", "a|c"), ('"x"', '"y"')])
def test_a_threshold_a_pattern_and_a_table_change_the_version(version, change):
    constants, _ = version(MODULE)
    assert version(MODULE.replace(*change))[0] != constants


def test_code_changes_the_key_of_a_cache_and_no_identity(version):
    before, after = version(MODULE), version(MODULE.replace("value >", "value >="))
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_file_counts_with_its_content(tmp_path: Path):
    first, copy, other = (tmp_path / name for name in ("first", "copy", "other"))
    for file, text in ((first, "a"), (copy, "a"), (other, "b")):
        file.write_text(text)
    assert version_of([first]) == version_of([copy]) != version_of([other])


def test_order_counts_in_lists_only():
    assert version_of({"a": 1, "b": {2, 3}}) == version_of({"b": {3, 2}, "a": 1})
    assert version_of([1, 2]) != version_of([2, 1])
    with pytest.raises(TypeError, match="object has no version"):
        version_of([object()])


def changed(monkeypatch: pytest.MonkeyPatch, module: str, name: str, value: object) -> None:
    monkeypatch.setattr(f"{module}.{name}", value)
    from medaction.words import versions

    versions._constants.cache_clear()


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        ("medaction.kg.encoder", "SMALL_THRESHOLD", 0.5),
        ("medaction.kg.linking", "NEIGHBOURS", 6),
        ("medaction.kg.readings", "TOO_BROAD", frozenset()),
    ],
)
def test_what_decides_a_link_changes_the_linkers_version(monkeypatch, module, name, value):
    graph = open_graphs.open_disease_graph()
    linker = linking.Linker(graph, ("disease",))
    before = linker.version
    changed(monkeypatch, module, name, value)
    assert linker.version != before
    monkeypatch.undo()
    changed(monkeypatch, "medaction.kg.linking", "NEIGHBOURS", linking.NEIGHBOURS)
    assert linker.version == before


@pytest.mark.parametrize(
    "question", ["EXTRACTION_INSTRUCTIONS", "ASK_MENU", "ASK_PRESENTATION", "PART"]
)
def test_a_question_of_the_extraction_changes_what_environments_are_built_with(
    monkeypatch, question
):
    before = version_of(constants_of(*build.RULES))
    changed(monkeypatch, "medaction.envs.extraction", question, "another question")
    assert version_of(constants_of(*build.RULES)) != before
    monkeypatch.undo()
    changed(monkeypatch, "medaction.envs.extraction", "PART", extraction.PART)


LISTS = [
    (build.RULES, ["medaction.envs.build", "medaction.envs.extraction"], "medaction.envs."),
    (open_graphs.BUILDERS, ["medaction.kg.open_graphs"], "medaction."),
]


@pytest.mark.parametrize(("listed", "roots", "prefix"), LISTS)
def test_the_lists_of_modules_hold_all_that_their_roots_import(listed, roots, prefix):
    folder, waiting, imported = Path(__file__).parent.parent, [*roots], set()
    while waiting:
        name = waiting.pop()
        file = folder / (name.removeprefix("medaction.").replace(".", "/") + ".py")
        if name in imported or not name.startswith(prefix) or not file.exists():
            continue
        imported.add(name)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{item.name}" for item in node.names)]
    # Records and caches hold data and files of others; the ledger and menus only tell.
    neutral = {"medaction.envs.records", "medaction.envs.ledger", "medaction.kg.cache"}
    neutral |= {"medaction.words.versions", "medaction.words.errors"}
    assert imported - {*listed} - neutral == set()


def test_the_names_of_stored_things_stay_as_they_are() -> None:
    """Stores, datasets and caches of earlier versions are read by them."""
    world, root, branch = small_tree()
    assert (world.environment_id, report_hash(report())) == ("63fccb07ac21e426", "c0c83ab0bf1bd70f")
    assert (root.trajectory_id, branch.trajectory_id) == ("2afb68a92e85e15a", "74899347329bd129")
    assert reply_key("s", {"ä": 1, "a": [2]}).startswith("1918553b54f7acd8")
