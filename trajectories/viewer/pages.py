"""The viewer's pages as HTML text, from a snapshot of the store. Everything that is not ours is
escaped; there is no script at all."""

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

Filters = dict[str, str]


class ShownRun:
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
            queries.prepare(self.db)
            self.charts = self._draw()

    def _draw(self) -> tuple[Markup, Markup]:
        """DTC by turn and the distribution of RAC, once a snapshot: drawing them takes longer than
        all the rest of the page."""
        threshold = queries.rows(self.db, "threshold")[0]["threshold"]
        lines = charts.lines_of_dtc(queries.rows(self.db, "DTC by turn"))
        bars = charts.rac_distribution(queries.rows(self.db, "RAC"), threshold)
        return Markup(lines), Markup(bars)  # drawn by us, letters as paths

    def render(self, template: str, entry: str, **values: Any) -> str:
        """The HTML of a template; `entry` is that of the menu."""
        values.setdefault("at", lambda case_id: f"/case/{quote(case_id, safe='')}")
        return _html.get_template(f"{template}.html.j2").render(
            here=entry, out=str(self.out), as_of=self.as_of, **values
        )

    @property
    def as_of(self) -> str:
        """When the snapshot was written."""
        time = datetime.fromtimestamp((self._seen or (0, 0))[1] / 1e9, UTC)
        return time.strftime("%Y-%m-%d %H:%M:%S UTC")


def overview(run: ShownRun) -> str:
    return run.render("overview", "/", **_overview(run))


def _overview(run: ShownRun) -> dict[str, Any]:
    lines, bars = run.charts
    return {"o": queries.overview(run.db), "dtc_chart": lines, "rac_chart": bars}


def cases(run: ShownRun, filters: Filters, number: int) -> str:
    page = queries.cases(run.db, filters, number)
    return _table_page(run, "cases", page, filters, choices=queries.choices(run.db))


def trajectories(run: ShownRun, filters: Filters, number: int) -> str:
    page = queries.trajectories(run.db, filters, number)
    return _table_page(run, "trajectories", page, filters, choices=queries.choices(run.db))


def failures(run: ShownRun, number: int) -> str:
    return _table_page(run, "failures", queries.failures(run.db, number), {})


def _table_page(
    run: ShownRun, name: str, page: queries.Page, filters: Filters, **values: Any
) -> str:
    query = {field: value for field, value in filters.items() if value}

    def url(number: int) -> str:
        return f"/{name}?{urlencode(query | {'page': number})}"

    return run.render(name, f"/{name}", page=page, wanted=filters, url=url, **values)


def case(run: ShownRun, case_id: str) -> str | None:
    """The page of a case, or None when the run has no such case."""
    details = queries.case(run.db, case_id)
    return run.render("case", "/cases", c=details) if details else None


def export(run: ShownRun, case_ids: list[str]) -> str:
    """One HTML file with the overview and these cases whole, that needs nothing else. Raises
    KeyError for a case that is not there."""
    details = []
    for case_id in case_ids:
        if (case := queries.case(run.db, case_id)) is None:
            raise KeyError(case_id)
        details.append(case)
    ids = {case["case_id"] for case in details}
    pages = queries.cases(run.db, {}, 1).pages
    tables = (queries.cases(run.db, {}, number) for number in range(1, pages + 1))
    rows = [row for table in tables for row in table.rows if row["case_id"] in ids]
    return run.render(
        "export",
        "",
        **_overview(run),
        shown=details,
        listed=rows,
        at=lambda case_id: f"#case-{case_id}",
    )
