"""The oracle of an environment as runs use it."""

import numpy as np

from medaction.envs.extraction import Complete
from medaction.envs.menu_choice import make_chooser
from medaction.envs.oracle import Oracle
from medaction.envs.records import ClinicalEnvironment
from medaction.kg.encoder import load_encoder
from medaction.kg.tests_table import aliases_of_tests


def oracle_of(environment: ClinicalEnvironment, model: Complete | None = None) -> Oracle:
    """The environment's oracle: the table's synonyms, the small encoder, and at last the model, if
    one is given. The encoder is loaded, once a process, when an order first needs it."""

    def encode(texts: list[str]) -> np.ndarray:
        return load_encoder().encode(texts)

    choose = make_chooser(model) if model else None
    return Oracle(environment.menu, aliases_of_tests(), encode, choose=choose)
