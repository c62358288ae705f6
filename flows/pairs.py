"""Branches where preference pairs are missing: which there are, and playing them."""

from collections import defaultdict

from medaction.flows.dataset import answered
from medaction.flows.missing import chosen_environments, skips, tree_plan
from medaction.flows.settings import DistillSettings, Retry
from medaction.trajectories.preferences import missing_pairs
from medaction.trajectories.records import RolloutSpec
from medaction.trajectories.store import Store
from medaction.trajectories.stored_trees import tree_of
from medaction.trajectories.tree import pair_specs


def branches_for_pairs(
    store: Store, settings: DistillSettings, retry: Retry | None = None
) -> dict[str, tuple[RolloutSpec, ...]]:
    """By environment, the branches that `pair_branches` allows from states without a pair, but for
    those that failed before and are left to `retry`. The store must be scored."""
    if not settings.pair_branches or store.evaluation_only:
        return {}
    plan, failed = tree_plan(settings), skips(store, retry)
    points: dict[str, list[tuple[str, int]]] = defaultdict(list)
    environment_of = {
        spec.trajectory_id: environment_id
        for environment_id, specs in store.specs().items()
        for spec in specs
    }
    for point in missing_pairs(answered(store, settings)):
        points[environment_of[point[0]]].append(point)
    branches = {}
    for place in chosen_environments(store, settings):
        ids = failed.get(place.case_id, frozenset())
        # None: the whole case failed, and is left to `retry`.
        if place.environment_id not in points or ids is None:
            continue
        tree = tree_of(store, place.environment_id)
        specs = pair_specs(tree, points[place.environment_id], plan, settings.pair_branches)
        if wanted := tuple(spec for spec in specs if spec.trajectory_id not in ids):
            branches[place.environment_id] = wanted
    return branches
