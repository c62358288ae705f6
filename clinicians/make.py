"""From the setting to the clinician that plays."""

from typing import TYPE_CHECKING, cast

from clinicians.llm_clinician import LlmClinician
from clinicians.prompts import PROMPT_VERSION
from clinicians.teacher import Teacher

if TYPE_CHECKING:
    from clinicians.kg_clinician import KgClinician


def make_clinician(teacher: Teacher) -> "KgClinician | LlmClinician":
    """The clinician that a teacher stands for. A local teacher must have been started (its model and api_base point at a server)."""
    if not teacher.embedded:
        return LlmClinician(teacher)
    from clinicians.kg_clinician import KgClinician, Style  # SciPy and the graph's tables, which no language model needs

    return KgClinician(cast(Style, teacher.model))


def prompt_version(teacher: Teacher) -> str:
    """The version of what the teacher is told, which is part of a rollout's identity."""
    if not teacher.embedded:
        return PROMPT_VERSION
    from clinicians.kg_clinician import KgClinician

    return KgClinician.prompt_version
