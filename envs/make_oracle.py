"""The oracle of an environment as runs use it."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from medaction.envs.leaks import complaint_of
from medaction.envs.oracle import Oracle
from medaction.envs.records import ClinicalEnvironment, DocumentedTest
from medaction.kg.encoder import load_encoder
from medaction.kg.tests_table import aliases_of_tests

if TYPE_CHECKING:
    from medaction.envs.extraction import Complete


MENUS_KEPT = 256
"""A menu's names take 0.2 s of CPU to encode. All episodes of a case, and the judge of each, share
them: without it a step of twelve sample cases' episodes takes 204 ms, with it 37."""


def oracle_of(environment: ClinicalEnvironment, model: "Complete | None" = None) -> Oracle:
    """The environment's oracle: the table's synonyms, the small encoder, and at last the model, if
    one is given. The encoder is loaded, once a process, when an order first needs it."""
    # Not cached: the model that chooses is a run's own.
    complaint = complaint_of(environment.initial_observation)
    if not model:
        return _oracle_without_model(environment.menu, complaint)
    from medaction.envs.menu_choice import make_chooser  # with Pydantic, which only it needs

    chooser = make_chooser(model)
    return Oracle(
        environment.menu, aliases_of_tests(), _encode, choose=chooser, complaint=complaint
    )


@lru_cache(maxsize=MENUS_KEPT)
def _oracle_without_model(menu: tuple[DocumentedTest, ...], complaint: str) -> Oracle:
    return Oracle(menu, aliases_of_tests(), _encode, complaint=complaint)


def _encode(texts: list[str]) -> np.ndarray:
    return load_encoder().encode(texts)
