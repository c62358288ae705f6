"""Trees read back from the store as records, some at a time."""

from collections.abc import Iterator, Sequence

from medaction.envs.records import ClinicalEnvironment
from medaction.envs.turns import Turn
from medaction.trajectories.queries import named_rows
from medaction.trajectories.records import RolloutSpec, Trajectory
from medaction.trajectories.store import IN, Store, StoreError
from medaction.trajectories.table_rows import turns_of

TREES_AT_ONCE = 100
"""Environments whose trees are read at a time, and a search of the ids of the store for each. 500
trees of eight short rollouts took 120 MiB as records, and two batches live while the second is
read."""
NO_TEXTS = """
trajectory_id, number, '' as reasoning, differential, '' as "pivot", tests, [] as answers,
turns.final_diagnosis, '' as raw, '' as thinking, repaired, calls, prompt_tokens, completion_tokens,
cost_usd, seconds, cached_calls, [] as faults
"""
"""A turn's columns without the texts that scoring does not read: 19 of 20 bytes of a turn."""


def tree_of(store: Store, environment_id: str) -> list[Trajectory]:
    """All trajectories of an environment, parents before their branches."""
    return _trees(store, [environment_id]).get(environment_id, [])


def trees_of(store: Store) -> Iterator[list[tuple[ClinicalEnvironment, list[Trajectory]]]]:
    """The current environment of every case with its trajectories, in the order of case ids,
    `TREES_AT_ONCE` at a time: a store of many is not read into memory, nor searched for each of
    them."""
    for ids in _batches(store):
        trees = _trees(store, ids)
        yield [(world, trees.get(world.environment_id, [])) for world in store.environments(ids)]


def trees_without_texts(store: Store) -> Iterator[list[tuple[str, list[Trajectory]]]]:
    """What `trees_of` gives, with environment ids alone and no text of a turn but the names of
    diagnoses and tests: all that DTC and RAC are measured on."""
    for ids in _batches(store):
        trees = _trees(store, ids, NO_TEXTS)
        yield [(environment_id, trees.get(environment_id, [])) for environment_id in ids]


def each_environment(store: Store) -> Iterator[ClinicalEnvironment]:
    """What `Store.environments` gives, without all of them in memory."""
    for ids in _batches(store):
        yield from store.environments(ids)


def _batches(store: Store) -> Iterator[list[str]]:
    ids = [key.environment_id for key in store.environment_keys()]
    for begin in range(0, len(ids), TREES_AT_ONCE):
        yield ids[begin : begin + TREES_AT_ONCE]


def _trees(
    store: Store, environment_ids: Sequence[str], columns: str = "turns.*"
) -> dict[str, list[Trajectory]]:
    rows = store.rows(
        "select environment_id, case_id, teacher, style, sample, settings_hash, parent_id,"
        " branch_turn, trajectory_id, outcome, t_max, prompt_version, code_version from"
        f" trajectories where {IN} order by branch_turn, trajectory_id",
        [environment_ids],
    )
    # Without trajectories there is no lowest and no highest row to look between.
    turns = _turns_by_trajectory(store, environment_ids, columns) if rows else {}
    trees: dict[str, list[Trajectory]] = {}
    for row in rows:
        spec, stored_id = RolloutSpec(*row[:8]), row[8]
        trajectory = Trajectory(spec, tuple(turns.get(stored_id, ())), *row[9:])
        # An edited row, or one of a program that made ids otherwise: its branches would be lost.
        if stored_id != trajectory.trajectory_id:
            raise StoreError(
                f"{store.path}: trajectory {stored_id} does not have the id that its own record"
                " gives"
            )
        trees.setdefault(spec.environment_id, []).append(trajectory)
    return trees


def _turns_by_trajectory(
    store: Store, environment_ids: Sequence[str], columns: str
) -> dict[str, list[Turn]]:
    # A case's turns were written together: their texts are read only from there. A join alone would
    # read all texts of the store.
    [(lowest, highest)] = store.rows(
        "select min(turns.rowid), max(turns.rowid) from turns join trajectories using"
        f" (trajectory_id) where {IN}",
        [environment_ids],
    )
    turn_rows = store.db.execute(
        f"select {columns} from turns join trajectories using (trajectory_id) where"
        f" turns.rowid between ? and ? and {IN} order by trajectory_id, number",
        [lowest, highest, environment_ids],
    )
    rows = named_rows(turn_rows)
    turns_by_trajectory: dict[str, list[Turn]] = {}
    for row, turn in zip(rows, turns_of(rows), strict=True):
        turns_by_trajectory.setdefault(row["trajectory_id"], []).append(turn)
    return turns_by_trajectory
