"""Which tests the Synthea patient simulator orders for which condition: the only disease-test links
that ship in a package."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from medaction.kg.packages import package_path

_KIND = re.compile(r"\s*\((procedure|disorder|finding|situation)\)$")


@cache
def load_reasons() -> tuple[tuple[str, str], ...]:
    """(procedure, disorder) pairs by their SNOMED names: each procedure that a module performs
    because of a disorder.

    Procedures here are tests and treatments alike; the caller keeps those it knows to be tests.
    """
    return tuple(dict.fromkeys(pair for module in _modules() for pair in _pairs(module["states"])))


@cache
def loinc_names() -> dict[str, str]:
    """LOINC code -> the name that Synthea's modules show for it, for the about 420 codes that they
    use."""
    names: dict[str, str] = {}
    items: list[Any] = list(_modules())
    while items:
        item = items.pop()
        if isinstance(item, dict):
            if item.get("system") == "LOINC" and item.get("display"):
                name = names.setdefault(item["code"], item["display"])
                names[item["code"]] = min(
                    name, item["display"]
                )  # whatever the order of the modules
            items += item.values()
        elif isinstance(item, list):
            items += item
    return names


@cache
def _modules() -> tuple[dict[str, Any], ...]:
    folder = package_path("synthea", "resources/modules")
    return tuple(json.loads(path.read_bytes()) for path in sorted(folder.rglob("*.json")))


def _pairs(states: dict[str, dict]) -> Iterator[tuple[str, str]]:
    disorders = {
        name: state["codes"][0]["display"]
        for name, state in states.items()
        if state["type"] == "ConditionOnset"
    }
    # A procedure names its reason by the state that began it or by the attribute that it set.
    disorders |= {
        state["assign_to_attribute"]: disorders[name]
        for name, state in states.items()
        if name in disorders and "assign_to_attribute" in state
    }
    for state in states.values():
        if state["type"] == "Procedure" and state.get("reason") in disorders:
            disorder = disorders[state["reason"]]
            if disorder.endswith("(disorder)"):  # a finding or a situation is no diagnosis
                yield _KIND.sub("", state["codes"][0]["display"]), _KIND.sub("", disorder)
