"""MedAction: case reports in; clinical environments, diagnostic trajectories and scores out.

What a notebook needs, by its plain name:

    import medaction

    report = next(medaction.read_cases("examples/cases"))
    environment = medaction.build_environment(report).environment
    episode = medaction.Episode(environment, medaction.oracle_of(environment))
    while not episode.ended:
        episode.step(model(episode.prompt()))
    episode.rewards(medaction.linkers())  # DTC and RAC of every turn

A name is imported when it is used first, so that `import medaction` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Never run: these would import polars, DuckDB and Prefect at the first `import medaction`.
if TYPE_CHECKING:
    from medaction.clinicians.make import make_clinician as make_clinician
    from medaction.envs.build import build_environment as build_environment
    from medaction.envs.episode import Episode as Episode
    from medaction.envs.extraction import make_extractor as make_extractor
    from medaction.envs.make_oracle import oracle_of as oracle_of
    from medaction.envs.oracle import Oracle as Oracle
    from medaction.envs.records import BadCase as BadCase
    from medaction.envs.records import CaseReport as CaseReport
    from medaction.envs.records import ClinicalEnvironment as ClinicalEnvironment
    from medaction.envs.rewards import Ruler as Ruler
    from medaction.envs.sources import read_cases as read_cases
    from medaction.flows.distill import distill as distill
    from medaction.flows.evaluate import evaluate as evaluate
    from medaction.flows.settings import DistillSettings as DistillSettings
    from medaction.flows.settings import EvaluationSettings as EvaluationSettings
    from medaction.kg.linking import Linker as Linker
    from medaction.kg.metrics import Course as Course
    from medaction.kg.metrics import dtc as dtc
    from medaction.kg.metrics import measure as measure
    from medaction.kg.metrics import rac as rac
    from medaction.kg.pruning import prune_dtc_rac as prune_dtc_rac
    from medaction.llm.teacher import Teacher as Teacher
    from medaction.trajectories.export import export_dataset as export_dataset
    from medaction.trajectories.records import RolloutSpec as RolloutSpec
    from medaction.trajectories.records import Trajectory as Trajectory
    from medaction.trajectories.rollout import play as play
    from medaction.trajectories.scoring import linkers as linkers
    from medaction.trajectories.scoring import score_store as score_store
    from medaction.trajectories.store import Store as Store

_MODULES = {
    "clinicians.make": ["make_clinician"],
    "envs.build": ["build_environment"],
    "envs.episode": ["Episode"],
    "envs.extraction": ["make_extractor"],
    "envs.make_oracle": ["oracle_of"],
    "envs.oracle": ["Oracle"],
    "envs.records": ["BadCase", "CaseReport", "ClinicalEnvironment"],
    "envs.rewards": ["Ruler"],
    "envs.sources": ["read_cases"],
    "flows.distill": ["distill"],
    "flows.evaluate": ["evaluate"],
    "flows.settings": ["DistillSettings", "EvaluationSettings"],
    "kg.linking": ["Linker"],
    "kg.metrics": ["Course", "dtc", "measure", "rac"],
    "kg.pruning": ["prune_dtc_rac"],
    "llm.teacher": ["Teacher"],
    "trajectories.export": ["export_dataset"],
    "trajectories.records": ["RolloutSpec", "Trajectory"],
    "trajectories.rollout": ["play"],
    "trajectories.scoring": ["linkers", "score_store"],
    "trajectories.store": ["Store"],
}
"""Where each public name is defined; the imports above tell type checkers and editors the same."""

_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medaction' has no attribute {name!r}")
    # Python asks a module's __getattr__ only for names that it does not have (PEP 562).
    return getattr(import_module(f"medaction.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
