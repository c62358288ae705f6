"""From the setting to the clinician that plays."""

from typing import TYPE_CHECKING, cast

from clinicians.llm_clinician import LlmClinician
from clinicians.prompts import CONTEXT_TOKENS, PROMPT_VERSIONS
from clinicians.teacher import Teacher
from trajectories.records import Style

if TYPE_CHECKING:
    from clinicians.kg_clinician import KgClinician


def make_clinician(teacher: Teacher) -> "KgClinician | LlmClinician":
    """The clinician that a teacher stands for. A local teacher must have been started (its model and api_base point at a server)."""
    if not teacher.embedded:
        return LlmClinician(teacher, teacher.context_tokens or CONTEXT_TOKENS)
    from clinicians.kg_clinician import KgClinician
    from clinicians.kg_orders import Style as KgStyle  # SciPy and the graph's tables, which no language model needs

    return KgClinician(cast(KgStyle, teacher.model))


def prompt_version(teacher: Teacher, style: Style = "schema") -> str:
    """The version of what the teacher is told in a style, which is part of a rollout's identity.

    Raises KeyError for a style that the teacher cannot play.
    """
    if not teacher.embedded:
        return PROMPT_VERSIONS[style]
    from clinicians.kg_clinician import KgClinician

    return KgClinician.prompt_versions[style]
