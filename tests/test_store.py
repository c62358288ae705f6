"""The store: what goes in comes out, nothing twice, one writer, benchmark and training cases
apart."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from medaction.envs.records import BadCase, Built, CheckResult
from medaction.evaluation.case_sets import read_set
from medaction.flows.services import keep_spent, spent_usd
from medaction.trajectories.records import Failure, OpenFailure, now
from medaction.trajectories.store import Store, StoreError
from medaction.trajectories.stored_trees import tree_of
from medaction.trajectories.table_rows import BuiltCase
from tests.records import add_environment, environment, put_derived, report, small_tree


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "trajectories.duckdb") as opened:
        yield opened


def fill(store: Store, case_id: str = "case-1"):
    world, root, branch = small_tree(case_id)
    add_environment(store, report(case_id), world)
    store.add_rollouts("rollout", case_id, [root, branch], [], "run-1")
    return world, root, branch


def test_records_come_back_equal(store: Store) -> None:
    world, root, branch = fill(store)
    assert store.environments() == [world]
    assert tree_of(store, world.environment_id) == [root, branch]


def test_the_same_rollouts_are_stored_once(store: Store) -> None:
    _, root, branch = fill(store)
    before = store.rows("select * from turns order by all")
    store.add_rollouts("rollout", "case-1", [branch, root, root], [], "run-2")
    assert store.rows("select * from turns order by all") == before
    assert store.rows("select distinct run_id from trajectories") == [("run-1",)]
    assert len(before) == 4


def test_the_path_of_a_branch_is_the_prefix_and_its_own_turns(store: Store) -> None:
    _, root, branch = fill(store)
    path = store.rows(
        "select number, owner_id from paths where path_id = ? order by number",
        [branch.trajectory_id],
    )
    assert path == [(1, root.trajectory_id), (2, branch.trajectory_id)]


def test_a_refused_case_is_on_record_until_it_succeeds(store: Store) -> None:
    found = CheckResult("results_grounded", False, 40.0, 90.0, "PET is not in the report")
    refused = Built(None, BadCase("results_grounded", found.detail), (found,))
    store.add_built_cases([BuiltCase(report(), refused)], "min_tests 1", "run-1")
    assert store.rows("select environment_id, reason from cases") == [(None, "results_grounded")]
    assert store.open_failures("environment") == [
        OpenFailure("environment", "case-1", None, None, "results_grounded")
    ]
    assert store.rows('select "name", figure, threshold from checks') == [
        ("results_grounded", 40.0, 90.0)
    ]
    add_environment(store, report(), environment())
    assert store.open_failures("environment") == []
    assert store.rows("select count(*) from checks") == [(0,)]
    assert store.rows("select count(*) from failures where resolved is not null") == [(1,)]


def test_a_failed_rollout_counts_its_attempts_and_is_resolved_by_success(store: Store) -> None:
    world, root, _ = small_tree()
    add_environment(store, report(), world)
    failure = Failure(
        "rollout",
        "case-1",
        "MalformedReply",
        "no JSON",
        now(),
        "teacher-a",
        root.trajectory_id,
        2,
        raw="<html>",
    )
    store.add_rollouts("rollout", "case-1", [], [failure], "run-1")
    store.add_rollouts("rollout", "case-1", [], [failure], "run-2")
    assert store.rows("select attempt, raw from failures order by attempt") == [
        (1, "<html>"),
        (2, "<html>"),
    ]
    assert store.open_failures("environment", "rollout") == [
        OpenFailure("rollout", "case-1", "teacher-a", root.trajectory_id, "MalformedReply")
    ]
    store.add_rollouts("rollout", "case-1", [root], [], "run-3")
    assert store.open_failures("rollout") == []


def test_benchmark_and_training_cases_never_share_a_store(store: Store) -> None:
    add_environment(store, report("a"), environment("a", evaluation_only=True))
    assert store.evaluation_only
    with pytest.raises(StoreError, match="another output folder"):
        add_environment(store, report("b"), environment("b"))
    assert [world.case_id for world in store.environments()] == ["a"]


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    good = {
        "graph": "g",
        "kind": "test",
        "text": "x",
        "node": 1,
        "name": "x",
        "method": "exact",
        "score": 1.0,
    }
    with pytest.raises(duckdb.ConstraintException):
        put_derived(store, links=[good, good])
    assert store.rows("select count(*) from links") == [(0,)]


def test_a_query_reaches_no_other_file(store: Store) -> None:
    for sql in (f"select * from read_text('{__file__}')", "attach 'other.duckdb'", "load httpfs"):
        with pytest.raises(duckdb.PermissionException):
            store.rows(sql)


def test_hostile_text_is_stored_as_text(store: Store) -> None:
    texts = [
        "'; drop table turns; --",
        '{"a": 1}',
        "null",
        "",
        "\\u0000",
        "日本 \t \n \x07",
        '"], "x": ["',
    ]
    rows = [
        {
            "graph": "g",
            "kind": str(i),
            "text": text,
            "node": None,
            "name": text,
            "method": "exact",
            "score": 0.5,
        }
        for i, text in enumerate(texts)
    ]
    put_derived(store, links=rows)
    assert [row[0] for row in store.rows('select "text" from links order by kind')] == texts
    assert [row[0] for row in store.rows("select name from links order by kind")] == texts


@pytest.mark.long
def test_a_second_process_is_told_who_has_the_store(tmp_path: Path) -> None:
    with Store(tmp_path / "s.duckdb"):
        code = (
            "from pathlib import Path; from medaction.trajectories.store import Store;"
            f" Store(Path({str(tmp_path / 's.duckdb')!r}))"
        )
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert second.returncode != 0
    assert "StoreError" in second.stderr
    assert "in use by another process" in second.stderr
    assert str(os.getpid()) in second.stderr


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "s.duckdb"
    bad.write_text("this is no database" * 1000)
    with pytest.raises(StoreError, match=r"s\.duckdb"):
        Store(bad)


def test_a_run_that_was_killed_is_marked_interrupted(store: Store) -> None:
    store.db.execute(
        "insert into runs values ('old', 'distill', 'flow-run-7', 1, now(), null, 'running', '{}',"
        " '{}')"
    )
    with store.run("distill", '{"seed": 1}', None, {}) as run_id:
        assert dict(store.rows("select run_id, state from runs")) == {
            "old": "interrupted",
            run_id: "running",
        }
    assert dict(store.rows("select run_id, state from runs"))[run_id] == "completed"
    with pytest.raises(KeyError), store.run("distill", "{}", None, {}):
        raise KeyError
    assert store.rows("select count(*) from runs where state = 'failed'") == [(1,)]


@pytest.mark.long
def test_sigkill_between_cases_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    """A process stores case after case and is killed; the file opens, and each case is there whole
    or not at all."""
    path = tmp_path / "s.duckdb"
    code = textwrap.dedent(f"""
        from pathlib import Path
        from tests.records import add_environment, report, small_tree
        from medaction.trajectories.store import BuiltCase, Store
        store = Store(Path({str(path)!r}))
        for i in range(10_000):
            world, root, branch = small_tree(f"case-{{i}}")
            add_environment(store, report(f"case-{{i}}"), world)
            store.add_rollouts("rollout", f"case-{{i}}", [root, branch], [], "run-1")
            print(i, flush=True)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(20)]
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout.read().split()]
    with Store(path) as store:
        per_case = store.rows(
            "select case_id, count(*) from trajectories join turns using (trajectory_id) group by"
            " all"
        )
        assert {count for _, count in per_case} == {4}
        assert {f"case-{i}" for i in said} <= {case_id for case_id, _ in per_case}


def test_an_older_schema_is_refused_with_its_version(tmp_path: Path) -> None:
    path = tmp_path / "s.duckdb"
    Store(path).db.close()
    with duckdb.connect(str(path)) as db:
        db.execute("update meta set value = '0' where key = 'schema_version'")
    with pytest.raises(StoreError, match="schema version 0"):
        Store(path)


def test_what_a_source_says_of_the_publication_is_an_object_in_stores_of_every_version(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run" / "trajectories.duckdb"
    article = replace(report("case-1"), meta={"pmcid": "PMC1", "doi": "10.1/x"})
    query = "select publication->>'$.pmcid' from cases"
    with Store(path) as store:
        add_environment(store, article, environment("case-1"))
        assert store.rows(query) == [("PMC1",)]
        # As version 3 wrote it: the object's text, encoded once more.
        store.db.execute("update cases set publication = to_json(publication::varchar)")
        store.set_meta("schema_version", "3")
        assert store.rows(query) == [(None,)]
    with Store(path) as store:
        assert store.rows(query) == [("PMC1",)]
    (case,) = read_set(path.parent)
    assert case.ids >= {"pmcid:PMC1", "doi:10.1/x"}


def test_a_dropped_commitment_has_its_own_name_in_stores_of_every_version(tmp_path: Path) -> None:
    path = tmp_path / "trajectories.duckdb"
    verdicts = [
        ("a", "discarded", "wrong_ending"),
        ("b", "truncated", "wrong_ending_and_pruned"),
        ("c", "truncated", "cut_and_pruned"),
    ]
    with Store(path) as store:
        for verdict in verdicts:
            store.db.execute(
                "insert into verdicts values (?, 'dtc_rac', 3, ?, ?, 2, [], [])", verdict
            )
        store.set_meta("schema_version", "5")
    with Store(path) as store:
        assert store.rows("select reason from verdicts order by trajectory_id") == [
            ("wrong_ending",),
            ("commitment_dropped_and_pruned",),
            ("cut_and_pruned",),
        ]


def test_a_run_that_a_passing_error_ends_is_not_left_running(tmp_path: Path) -> None:
    with Store(tmp_path / "s.duckdb") as store:
        store.set_meta("key", "old")
        other = store.db.cursor()
        other.execute("begin").execute("update meta set value = 'theirs' where key = 'key'")
        with pytest.raises(StoreError), store.run("distill", "{}", None, {}), store.transaction():
            store.db.execute("update meta set value = 'ours' where key = 'key'")
        assert store.rows("select state from runs") == [("failed",)]


def test_a_full_disk_is_one_line_and_the_store_opens_again(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import logging, resource, secrets, sys
        from pathlib import Path
        from medaction.trajectories.store import Store, StoreError
        from tests.records import add_environment, environment, report
        from dataclasses import replace

        logging.getLogger("medaction").addHandler(logging.StreamHandler())
        path = Path(sys.argv[1])
        with Store(path):
            pass
        size = path.stat().st_size + 200_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            with Store(path) as store, store.run("distill", "{}", None, {}):
                for number in range(1000):
                    case_id, long = f"case-{number}", secrets.token_hex(20_000)
                    world = replace(environment(), case_id=case_id, title=long)
                    add_environment(store, replace(report(), case_id=case_id), world)
                    if number == 2:
                        store._publisher._next = 0.0  # a snapshot is due, of which there is no room
                    print(number, flush=True)
        except StoreError as error:
            assert "Is the disk full" in str(error), error
            sys.exit(7)
    """)
    path = tmp_path / "trajectories.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr == "", "the error is the one line"
    with Store(path) as store:
        [(stored,)] = store.rows("select count(*) from environments")
    assert stored >= len(done.stdout.split()) > 0


def test_what_models_have_cost_is_known_to_the_next_run(tmp_path: Path) -> None:
    with Store(tmp_path / "s.duckdb") as store:
        fill(store)
        turns = spent_usd(store)["teacher-a"]
        assert turns > 0
        keep_spent(store, {"teacher-a": turns + 1, "judge": 2.5, "lost": math.inf})
    with Store(tmp_path / "s.duckdb") as store:
        assert spent_usd(store) == {"teacher-a": turns + 1, "judge": 2.5}
