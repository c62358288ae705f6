"""The oracle of an environment as runs use it."""

from typing import TYPE_CHECKING

import numpy as np

from medaction.envs.oracle import Oracle
from medaction.envs.records import ClinicalEnvironment
from medaction.kg.encoder import load_encoder
from medaction.kg.tests_table import aliases_of_tests

if TYPE_CHECKING:
    from medaction.envs.extraction import Complete


def oracle_of(environment: ClinicalEnvironment, model: "Complete | None" = None) -> Oracle:
    """The environment's oracle: the table's synonyms, the small encoder, and at last the model, if
    one is given. The encoder is loaded, once a process, when an order first needs it."""

    def encode(texts: list[str]) -> np.ndarray:
        return load_encoder().encode(texts)

    choose = None
    if model:
        from medaction.envs.menu_choice import make_chooser  # with Pydantic, which only it needs

        choose = make_chooser(model)
    return Oracle(environment.menu, aliases_of_tests(), encode, choose=choose)
