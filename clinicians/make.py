"""From the setting to the clinician that plays."""

from typing import TYPE_CHECKING, cast

from medaction.clinicians.language_model import LlmClinician
from medaction.envs.turns import Style
from medaction.llm.teacher import CONTEXT_TOKENS, Teacher

if TYPE_CHECKING:
    from medaction.clinicians.graph.clinician import KgClinician


def make_clinician(teacher: Teacher) -> "KgClinician | LlmClinician":
    """The clinician that a teacher stands for. A local teacher must have been started (its model
    and api_base point at a server)."""
    if not teacher.embedded:
        return LlmClinician(teacher, teacher.context_tokens or CONTEXT_TOKENS)
    # SciPy and the graph's tables, which no language model needs
    from medaction.clinicians.graph.clinician import KgClinician
    from medaction.clinicians.graph.orders import Aim

    return KgClinician(cast(Aim, teacher.model))


def prompt_version(teacher: Teacher, style: Style = "schema") -> str:
    """The version of what the teacher is told in a style, which is part of a rollout's identity.

    Raises KeyError for a style that the teacher cannot play.
    """
    return make_clinician(teacher).prompt_versions[style]
