"""The viewer's pages as HTML text, from a snapshot of the store. Everything that is not ours is
escaped; there is no script at all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import duckdb
import jinja2
from markupsafe import Markup

from medaction.trajectories.snapshot import SNAPSHOT, open_snapshot
from medaction.trajectories.viewer import charts, queries

TEMPLATES = Path(__file__).parent / "templates"
_html = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
)
_html.globals["css"] = Markup((TEMPLATES / "style.css").read_text())  # ours, not data

Wanted = dict[str, str]


class Run:
    """The newest snapshot of the run in `out`, opened anew when a newer one is there. Raises
    FileNotFoundError when there is none."""

    def __init__(self, out: Path):
        self.out = out
        self._seen: tuple[int, int] | None = None
        self.db: duckdb.DuckDBPyConnection
        self.refresh()

    def refresh(self) -> None:
        """Have the newest snapshot; nothing is done while it is the one at hand."""
        stat = (self.out / SNAPSHOT).stat() if (self.out / SNAPSHOT).exists() else None
        seen = (stat.st_ino, stat.st_mtime_ns) if stat else None
        if seen is None or seen != self._seen:
            if self._seen:
                # DuckDB would hand out the old file again, as one that is open already
                self.db.close()
            self.db, self._seen = open_snapshot(self.out), seen
            self.db.execute(queries.PREPARE)
            self.charts = self._draw()

    def about(self) -> dict[str, Any]:
        """What every page's head says."""
        written = datetime.fromtimestamp((self._seen or (0, 0))[1] / 1e9, UTC)
        return {"out": str(self.out), "as_of": written.strftime("%Y-%m-%d %H:%M:%S UTC")}

    def _draw(self) -> tuple[Markup, Markup]:
        """DTC by turn and the distribution of RAC, once a snapshot: drawing them takes longer than
        all the rest of the page."""
        settings = queries.rows(
            self.db,
            "select settings from runs where flow = 'distill' order by started desc limit 1",
        )
        chosen = json.loads(settings[0]["settings"]) if settings else {}
        threshold = chosen.get("rac_threshold") if chosen.get("strategy") == "dtc_rac" else None
        lines = charts.dtc_by_turn(queries.dtc_by_turn(self.db))
        bars = charts.rac_distribution(queries.rac_values(self.db), threshold)
        return Markup(lines), Markup(bars)  # drawn by us, letters as paths


def overview(run: Run) -> str:
    lines, bars = run.charts
    return _render(
        run, "overview.html.j2", "/", o=queries.overview(run.db), dtc_chart=lines, rac_chart=bars
    )


def cases(run: Run, wanted: Wanted, number: int) -> str:
    page = queries.cases(run.db, wanted, number)
    return _render(
        run,
        "cases.html.j2",
        "/cases",
        page=page,
        wanted=wanted,
        choices=queries.choices(run.db),
        url=_pages("/cases", wanted),
    )


def trajectories(run: Run, wanted: Wanted, number: int) -> str:
    page, url = queries.trajectories(run.db, wanted, number), _pages("/trajectories", wanted)
    return _render(
        run,
        "trajectories.html.j2",
        "/trajectories",
        page=page,
        wanted=wanted,
        choices=queries.choices(run.db),
        url=url,
    )


def failures(run: Run, number: int) -> str:
    return _render(
        run,
        "failures.html.j2",
        "/failures",
        page=queries.failures(run.db, number),
        url=_pages("/failures", {}),
    )


def case(run: Run, case_id: str) -> str | None:
    """The page of a case, or None when the run has no such case."""
    found = queries.case(run.db, case_id)
    return _render(run, "case.html.j2", "/cases", c=found) if found else None


def export(run: Run, case_ids: list[str]) -> str:
    """One HTML file with the overview and these cases whole, that needs nothing else. Raises
    KeyError for a case that is not there."""
    shown = []
    for case_id in case_ids:
        if (found := queries.case(run.db, case_id)) is None:
            raise KeyError(case_id)
        shown.append(found)
    ids = {found["case_id"] for found in shown}
    pages = queries.cases(run.db, {}, 1).pages
    listed = [
        row
        for number in range(1, pages + 1)
        for row in queries.cases(run.db, {}, number).rows
        if row["case_id"] in ids
    ]
    lines, bars = run.charts
    return _render(
        run, "export.html.j2", "", o=queries.overview(run.db), dtc_chart=lines, rac_chart=bars, shown=shown, listed=listed,
        at=lambda case_id: f"#case-{case_id}",
    )  # fmt: skip


def _render(run: Run, template: str, here: str, **given: Any) -> str:
    at = given.pop("at", lambda case_id: f"/case/{quote(case_id, safe='')}")
    return _html.get_template(template).render(here=here, at=at, **run.about(), **given)


def _pages(path: str, wanted: Wanted) -> Callable[[int], str]:
    chosen = {name: value for name, value in wanted.items() if value}
    return lambda number: f"{path}?{urlencode(chosen | {'page': number})}"
