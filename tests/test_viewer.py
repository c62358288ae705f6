"""The viewer, on a store that a real run wrote: pages, filters, hostile text, the export, and a
browser that looks at them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from starlette.testclient import TestClient

from benchmarks.viewer import grow, viewer
from medaction.cli.main import main
from medaction.trajectories.files import SNAPSHOT
from medaction.trajectories.snapshot import open_snapshot
from medaction.trajectories.store import Store, StoreError, publish_if_missing
from medaction.trajectories.viewer import pages, queries
from medaction.trajectories.viewer.app import app_of
from medaction.trajectories.viewer.contamination import comparisons
from tests.conftest import SAMPLES
from tests.test_ui import browser, page

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> --> {{ 7*7 }}"
)


@pytest.fixture
def run(finished: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished[1], tmp_path / "run"))


def test_a_finished_run_has_a_snapshot_that_reads_like_its_store(run: Path):
    with Store(run / "trajectories.duckdb") as store:
        expected = store.rows("select * from turn_fates order by all")
    assert (
        open_snapshot(run).execute("select * from turn_fates order by all").fetchall() == expected
    )


def test_a_reader_neither_waits_for_a_writer_nor_keeps_one_out(run: Path):
    with Store(run / "trajectories.duckdb") as store:
        reader = open_snapshot(run)
        store.db.execute("update cases set title = 'changed'")
        assert reader.execute("select count(*) from cases where title = 'changed'").fetchone() == (
            0,
        )
        store.publish()
        reader.close()  # within one process DuckDB would hand out the file that is open already
        assert open_snapshot(run).execute(
            "select count(*) from cases where title <> 'changed'"
        ).fetchone() == (0,)
        # Publishing must not have cost the writer its lock: a second process is still refused.
        second = (
            "import sys; from pathlib import Path; from medaction.trajectories.store import Store;"
            " Store(Path(sys.argv[1]))"
        )
        refused = subprocess.run(
            [sys.executable, "-c", second, str(run / "trajectories.duckdb")],
            capture_output=True,
            text=True,
        )
        assert "is in use by another process" in refused.stderr


def test_an_ending_of_unknown_distance_does_not_reach_the_truth_that_an_earlier_turn_named(
    run: Path,
) -> None:
    with Store(run / "trajectories.duckdb") as store:
        store.db.execute(
            "update turn_scores set dtc = case when number = (select max(number) from turn_scores"
            " as other where other.trajectory_id = turn_scores.trajectory_id) then null else 0 end"
        )
        store.publish()
    shown = pages.ShownRun(run)
    rows = queries.rows(shown.db, "teachers")
    assert {(row["truth"], row["known"]) for row in rows} == {(0, 0)}
    with Store(run / "trajectories.duckdb") as store:
        store.db.execute("update turn_scores set dtc = 0")
        store.db.execute("update trajectories set outcome = 'loop'")
        store.db.execute(
            "update turns set final_diagnosis = 'by another name' where final_diagnosis is not null"
        )
        [case_id] = store.rows("select min(case_id) from trajectories")[0]
        store.publish()
    shown.refresh()
    assert "✗ by another name" not in str(pages.case(shown, case_id))
    rows = queries.rows(shown.db, "teachers")
    assert all(row["truth"] == row["trajectories"] for row in rows), "a circle may end right, too"


def test_the_pages_follow_a_run_under_way(run: Path):
    run_pages = pages.ShownRun(run)
    with Store(run / "trajectories.duckdb") as store:
        store.db.execute("update cases set title = 'as it is now'")
        run_pages.refresh()
        assert "as it is now" not in pages.cases(run_pages, {}, 1)
        store.publish()
        run_pages.refresh()
        assert "as it is now" in pages.cases(run_pages, {}, 1)


def test_a_snapshot_cannot_be_written_to(run: Path):
    with pytest.raises(duckdb.InvalidInputException, match="read-only"):
        open_snapshot(run).execute("delete from cases")


def test_a_run_of_earlier_days_gets_a_snapshot_when_it_is_looked_at(run: Path, tmp_path: Path):
    (run / SNAPSHOT).unlink()
    publish_if_missing(run)
    assert pages.overview(pages.ShownRun(run))
    with pytest.raises(StoreError, match="is not the folder of a run"):
        publish_if_missing(tmp_path)


def test_the_overview_has_the_numbers_of_the_store(run: Path):
    db = open_snapshot(run)
    html = pages.overview(pages.ShownRun(run))
    (turns,), (kept,) = (
        db.execute(f"select count(*) from turn_fates {where}").fetchall()[0]
        for where in ("", "where kept")
    )
    assert f"<b>{turns}</b><span>turns</span>" in html
    assert f"<b>{kept}</b><span>records kept</span>" in html


def test_filters_narrow_the_tables(run: Path):
    run_pages = pages.ShownRun(run)
    everything = queries.trajectories(run_pages.db, {}, 1)
    one = queries.trajectories(run_pages.db, {"teacher": "kg-targeted", "style": "schema"}, 1)
    assert 0 < one.total < everything.total
    assert {row["teacher"] for row in one.rows} == {"kg-targeted"}
    case = everything.rows[0]["case_id"]
    assert [row["case_id"] for row in queries.cases(run_pages.db, {"q": case}, 1).rows] == [case]
    assert queries.cases(run_pages.db, {"q": "' or true --"}, 1).total == 0
    assert 'name="sort" value="-turns"' in pages.cases(run_pages, {"sort": "-turns"}, 1), (
        "a filter leaves the order as it was"
    )


def test_the_search_finds_what_a_report_says_and_shows_the_passage(run: Path):
    with Store(run / "trajectories.duckdb") as store:
        case_id, title = store.rows("select case_id, title from cases order by all")[0]
        text = "She had come by the night\nferry from Ystad, and felt well until Tuesday."
        store.db.execute('update cases set "text" = ? where case_id = ?', [text, case_id])
        store.publish()
    run_pages = pages.ShownRun(run)
    (row,) = queries.cases(run_pages.db, {"q": "night FERRY"}, 1).rows
    assert row["case_id"] == case_id
    assert "the night ferry from Ystad" in row["passage"]
    assert "night ferry" in pages.cases(run_pages, {"q": "night FERRY"}, 1)
    assert queries.cases(run_pages.db, {"q": title}, 1).rows[0]["passage"] == ""


def test_an_open_page_learns_of_a_newer_snapshot_and_a_case_comes_as_one_file(run: Path):
    client = TestClient(app_of(run))
    case_id = re.findall(r'href="/case/([^"]+)"', client.get("/cases").text)[0]
    page = client.get(f"/case/{case_id}").text
    assert f'data-as-of="{client.get("/as-of").text}"' in page, "so it asks, and waits"
    assert f'href="/file/{case_id}"' in page
    file = client.get(f"/file/{case_id}")
    assert file.headers["content-disposition"].endswith(f"{case_id}.html")
    assert f'id="case-{case_id}"' in file.text
    assert "data-as-of" not in file.text.replace(pages.SCRIPT, ""), "a file has no server to ask"
    assert client.get("/file/no-such-case").status_code == 404
    with Store(run / "trajectories.duckdb") as store:
        store.publish()
    os.utime(run / SNAPSHOT, (2e9, 2e9))
    assert f'data-as-of="{client.get("/as-of").text}"' not in page


def test_a_case_shows_every_turn_with_its_tests_and_what_became_of_it(run: Path):
    run_pages = pages.ShownRun(run)
    case_id = queries.trajectories(run_pages.db, {}, 1).rows[0]["case_id"]
    html = pages.case(run_pages, case_id)
    assert html is not None
    for trajectory_id, number, tests in run_pages.db.execute(
        "select trajectory_id, number, tests from turns join leaves using (trajectory_id) where"
        " case_id = ?",
        [case_id],
    ).fetchall():
        assert f'id="t-{trajectory_id}-{number}"' in html
        assert all(str(pages.Markup.escape(test)) in html for test in tests)
    assert pages.case(run_pages, "no-such-case") is None


class Tags(HTMLParser):
    """The names of the elements and attributes of a page, as a browser reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names += [tag, *(name for name, _ in attrs)]

    def handle_data(self, data: str) -> None:
        if self.get_starttag_text() == "<script>" and data.strip():
            self.scripts.append(data)


def first_turn(run_pages: pages.ShownRun, case_id: str) -> tuple[str, int]:
    """A trajectory of the case, and its second turn, whose prompt quotes the first."""
    sql = "select trajectory_id from leaves where case_id = ? and turns > 1 order by all"
    return run_pages.db.execute(sql, [case_id]).fetchall()[0][0], 2


def test_a_long_title_is_cut_and_checks_that_do_not_apply_are_not_counted_as_failed(run: Path):
    shown = pages.ShownRun(run)
    case_id = queries.rows(shown.db, "case ids")[0]["case_id"]
    details = queries.case(shown.db, case_id)
    checks = details["checks"]
    assert any(not check["applicable"] for check in checks)
    assert all(check["passed"] for check in checks if check["applicable"])
    count = sum(check["applicable"] for check in checks)
    values = {"c": details | {"labels": {}, "title": "A word. " * 40}, "opened": ""}
    html = shown.render("case", "/cases", **values)
    assert f"Checks ({count} of {count} passed)" in html
    heading = html.split("<h1>")[1].split("</h1>")[0]
    assert len(heading.split(">A word")[1].split("<")[0]) < 120


def test_text_of_models_and_reports_is_only_ever_text(run: Path):
    with Store(run / "trajectories.duckdb") as store:
        store.db.execute("update cases set title = $t, text = $t", {"t": HOSTILE})
        store.db.execute(
            'update turns set raw = $t, reasoning = $t, "pivot" = $t, final_diagnosis = $t',
            {"t": HOSTILE},
        )
        store.db.execute(
            "update trajectories set final_diagnosis = $t, teacher = $t", {"t": HOSTILE}
        )
        store.publish()
    run_pages = pages.ShownRun(run)
    case_id = queries.trajectories(run_pages.db, {}, 1).rows[0]["case_id"]
    case = pages.case(run_pages, case_id)
    assert case is not None
    assert str(pages.Markup.escape(HOSTILE)) in case
    for html in (
        case,
        pages.overview(run_pages),
        pages.cases(run_pages, {"q": HOSTILE}, 1),
        pages.trajectories(run_pages, {}, 1),
        pages.export(run_pages, [case_id]),
        pages.prompt(run_pages, *first_turn(run_pages, case_id)) or "",
    ):
        assert "{{ 7*7 }}" in html, "it was evaluated, or is not there"
        tags = Tags()
        tags.feed(html)
        assert tags.names
        assert tags.scripts == [pages.SCRIPT], "the one script is ours"
        assert tags.names.count("script") == 1
        assert not [tag for tag in tags.names if tag in ("img", "onerror")]


def test_the_export_is_one_file_with_the_cases_asked_for(run: Path):
    run_pages = pages.ShownRun(run)
    first, second = (row["case_id"] for row in queries.cases(run_pages.db, {}, 1).rows[:2])
    html = pages.export(run_pages, [second])
    assert f'id="case-{second}"' in html
    assert f'id="case-{first}"' not in html
    assert 'href="/' not in html.split("<main>")[1]
    assert "src=" not in html
    with pytest.raises(KeyError):
        pages.export(run_pages, ["no-such-case"])
    assert pages.export(run_pages, []).count('id="case-') == 3, "without names every case"


def test_what_contamination_found_is_shown_side_by_side(run: Path, tmp_path: Path):
    with Store(run / "trajectories.duckdb") as store:
        case_id, text = store.rows('select case_id, "text" from cases order by 1')[0]
    sample = json.loads((SAMPLES / f"{case_id}.json").read_text())
    copied = {"case_id": "copy-1"}
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "copy-1.json").write_text(json.dumps(sample | copied))
    client = TestClient(app_of(run))
    assert "/contamination" not in client.get("/").text, "nothing has been compared"
    copies = str(tmp_path / "copies")
    main(["contamination", str(run), copies, copies])
    assert len(comparisons(run)) == 2
    main(["contamination", str(run), copies])
    assert len(comparisons(run)) == 1, "the reports of an earlier call are gone"
    assert not list(run.glob(".*building"))
    assert 'href="/contamination"' in client.get("/").text
    page = client.get("/contamination", params={"q": "COPY-1", "signal": "text"}).text
    assert 'href="/contamination/0"' in page
    assert 'href="/contamination/0"' not in client.get("/contamination?q=no-such-case").text
    file = run / "contamination" / "contamination.json"
    report = json.loads(file.read_text())
    report["pairs"][0]["title_of_other"] = HOSTILE  # of a source whose markup stays in the title
    file.write_text(json.dumps(report))
    pair = client.get("/contamination/0").text
    assert f'href="/case/{case_id}"' in pair
    assert str(pages.Markup.escape(HOSTILE)) in pair
    marked = re.findall("<mark>(.*?)</mark>", pair, re.DOTALL)
    assert sum(map(len, marked)) > len(text), "all of both texts, but for their edges"
    assert client.get("/contamination/1000").status_code == 404
    assert pages.pair(pages.ShownRun(run), 0) == pair


def look_until(tab: Any, text: str) -> None:
    """Let the page's clock run until the page has the text: one look may come before the server has
    seen the new snapshot."""
    for _ in range(60):
        tab.clock.run_for(6_000)
        with suppress(PlaywrightTimeout):
            tab.get_by_text(text).first.wait_for(timeout=1_000)
            return
    raise AssertionError(f"{text!r} never came")


def test_an_open_page_loads_what_is_newer_and_a_case_only_says_so(run: Path):
    with viewer(run) as url, browser() as tab:
        tab.clock.install()  # the page looks every five seconds, of this clock
        tab.goto(f"{url}/cases")
        assert tab.get_by_text("as it is now").count() == 0
        with Store(run / "trajectories.duckdb") as store:
            store.db.execute("update cases set title = 'as it is now'")
            store.publish()
        look_until(tab, "as it is now")

        tab.goto(url + str(tab.locator("td a").first.get_attribute("href")))
        with Store(run / "trajectories.duckdb") as store:
            store.db.execute("update cases set title = 'later still'")
            store.publish()
        look_until(tab, "there is newer")
        assert tab.get_by_text("later still").count() == 0, "what is being read stays as it is"
        tab.get_by_text("there is newer").click()
        tab.get_by_text("later still").first.wait_for()


def test_ctrl_c_is_how_the_viewer_ends(run: Path):
    command = [sys.executable, "-m", "medaction", "view", "--out", str(run), "--port", "0"]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as view:
        assert view.stdout
        assert "end with Ctrl+C" in view.stdout.readline()
        view.send_signal(signal.SIGINT)
        assert (view.wait(60), view.stderr.read() if view.stderr else "") == (0, "")


def test_in_a_browser_and_over_http(run: Path, tmp_path: Path):
    grow(run, tmp_path / "large", 100)
    with viewer(tmp_path / "large") as url:
        overview = page(url, tmp_path / "one")
        assert "From cases to training turns" in overview
        assert "kg-targeted" in overview
        case = re.search(r'href="(/case/[^"]+)"', httpx.get(f"{url}/cases").text)
        assert case
        assert "Initial observation" in page(url + case[1], tmp_path / "two")
        assert httpx.get(f"{url}/case/nothing").status_code == 404
        assert httpx.get(f"{url}/cases", headers={"Host": "elsewhere.example"}).status_code == 400


def test_signs_in_a_search_stand_for_themselves(run: Path):
    db = pages.ShownRun(run).db
    diagnosis = queries.cases(db, {}, 1).rows[0]["diagnosis"]
    assert queries.cases(db, {"q": diagnosis.upper()}, 1).rows
    for sign in "%_":
        assert not queries.cases(db, {"q": f"{diagnosis[:3]}{sign}{diagnosis[4:]}"}, 1).rows
