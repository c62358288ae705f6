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
        stamp = (stat.st_ino, stat.st_mtime_ns) if stat else None
        if stamp is None or stamp != self._seen:
            if self._seen:
                # DuckDB would hand out the old file again, as one that is open already
                self.db.close()
            self.db, self._seen = open_snapshot(self.out), stamp
            self.db.execute(queries.PREPARE)
            self.charts = self._draw()

    def about(self) -> dict[str, Any]:
        """What every page's head says."""
        time = datetime.fromtimestamp((self._seen or (0, 0))[1] / 1e9, UTC)
        return {"out": str(self.out), "as_of": time.strftime("%Y-%m-%d %H:%M:%S UTC")}

    def _draw(self) -> tuple[Markup, Markup]:
        """DTC by turn and the distribution of RAC, once a snapshot: drawing them takes longer than
        all the rest of the page."""
        settings = queries.rows(
            self.db,
            "select settings from runs where flow = 'distill' order by started desc limit 1",
        )
        run_settings = json.loads(settings[0]["settings"]) if settings else {}
        threshold = (
            run_settings.get("rac_threshold") if run_settings.get("strategy") == "dtc_rac" else None
        )
        lines = charts.dtc_by_turn(queries.dtc_by_turn(self.db))
        bars = charts.rac_distribution(queries.rac_values(self.db), threshold)
        return Markup(lines), Markup(bars)  # drawn by us, letters as paths


def overview(run: Run) -> str:
    lines, bars = run.charts
    return _render(
        run, "overview.html.j2", "/", o=queries.overview(run.db), dtc_chart=lines, rac_chart=bars
    )


def cases(run: Run, filters: Wanted, number: int) -> str:
    page = queries.cases(run.db, filters, number)
    return _render(
        run,
        "cases.html.j2",
        "/cases",
        page=page,
        wanted=filters,
        choices=queries.choices(run.db),
        url=_pages("/cases", filters),
    )


def trajectories(run: Run, filters: Wanted, number: int) -> str:
    page, url = queries.trajectories(run.db, filters, number), _pages("/trajectories", filters)
    return _render(
        run,
        "trajectories.html.j2",
        "/trajectories",
        page=page,
        wanted=filters,
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
    details = queries.case(run.db, case_id)
    return _render(run, "case.html.j2", "/cases", c=details) if details else None


def export(run: Run, case_ids: list[str]) -> str:
    """One HTML file with the overview and these cases whole, that needs nothing else. Raises
    KeyError for a case that is not there."""
    details = []
    for case_id in case_ids:
        if (case := queries.case(run.db, case_id)) is None:
            raise KeyError(case_id)
        details.append(case)
    ids = {case["case_id"] for case in details}
    pages = queries.cases(run.db, {}, 1).pages
    listed = [
        row
        for number in range(1, pages + 1)
        for row in queries.cases(run.db, {}, number).rows
        if row["case_id"] in ids
    ]
    lines, bars = run.charts
    return _render(
        run,
        "export.html.j2",
        "",
        o=queries.overview(run.db),
        dtc_chart=lines,
        rac_chart=bars,
        shown=details,
        listed=listed,
        at=lambda case_id: f"#case-{case_id}",
    )


def _render(run: Run, template: str, here: str, **given: Any) -> str:
    at = given.pop("at", lambda case_id: f"/case/{quote(case_id, safe='')}")
    return _html.get_template(template).render(here=here, at=at, **run.about(), **given)


def _pages(path: str, filters: Wanted) -> Callable[[int], str]:
    query = {name: value for name, value in filters.items() if value}
    return lambda number: f"{path}?{urlencode(query | {'page': number})}"
