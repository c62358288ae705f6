"""The docs site: it builds with every link checked, every page stands in its menu, and the pages
that are made from the code hold every command and setting."""

import sys
from pathlib import Path

import pytest
import yaml

from medaction.cli.main import COMMANDS
from medaction.flows.settings import DistillSettings
from tests.conftest import REPOSITORY


def pages_of(menu: object) -> list[str]:
    """The pages that a menu of mkdocs names, however deep."""
    if isinstance(menu, str):
        return [menu]
    parts = menu.values() if isinstance(menu, dict) else menu
    return [page for part in parts for page in pages_of(part)]  # type: ignore[union-attr]


def test_every_page_stands_in_the_menu() -> None:
    menu = pages_of(yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"])
    written = [str(file.relative_to(REPOSITORY / "docs")) for file in REPOSITORY.glob("docs/*.md")]
    made = ["reference/options.md", "reference/settings.md", "reference/python.md"]
    assert sorted(menu) == sorted([*written, *made])


@pytest.mark.long
def test_the_site_builds_and_its_reference_holds_commands_and_settings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed (make docs)")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    build(config)
    options = (tmp_path / "reference" / "options.html").read_text()
    assert all(f"medaction {name}" in options for name in COMMANDS)
    settings = (tmp_path / "reference" / "settings.html").read_text()
    assert all(name in settings for name in DistillSettings.model_fields)
    assert "https://fonts" not in options, "nothing is loaded from elsewhere"
    assert "mkdocs" in sys.modules
