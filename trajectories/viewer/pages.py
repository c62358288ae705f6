"""The viewer's pages as HTML text, from a snapshot of the store. Everything that is not ours is
escaped; the one script is ours."""

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import duckdb
import jinja2
from markupsafe import Markup

from medaction.trajectories.files import SNAPSHOT
from medaction.trajectories.labels import LONGEST, add_label, label_of, labels
from medaction.trajectories.records import now
from medaction.trajectories.snapshot import open_snapshot
from medaction.trajectories.viewer import charts, queries
from medaction.trajectories.viewer.contamination import COMPARISONS, comparisons, pair_at

TEMPLATES = Path(__file__).parent / "templates"
# Strict: a misspelt name fails in a test, and is no empty place on a page.
_html = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
)
SCRIPT = (TEMPLATES / "keys.js").read_text()
"""The one script of the pages. The policy names its hash, so that no other can run."""

_html.globals["css"] = Markup((TEMPLATES / "style.css").read_text())  # ours, not data
_html.globals["script"] = Markup(SCRIPT)
_html.globals["script_hash"] = b64encode(sha256(SCRIPT.encode()).digest()).decode()

Filters = dict[str, str]


class ShownRun:
    """The newest snapshot of the run in `out`, opened anew when a newer one is there. Raises
    FileNotFoundError when there is none."""

    def __init__(self, out: Path, other: "ShownRun | None" = None):
        self.out = out
        self.other = other
        self._seen: tuple[int, int] | None = None
        self.db: duckdb.DuckDBPyConnection
        self.refresh()

    def refresh(self) -> None:
        """Have the newest snapshot; nothing is done while it is the one at hand."""
        stat = (self.out / SNAPSHOT).stat() if (self.out / SNAPSHOT).exists() else None
        # With the inode: a snapshot is replaced by a rename, so each is another file.
        stamp = (stat.st_ino, stat.st_mtime_ns) if stat else None
        # Without a file `open_snapshot` raises, and says what to do.
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
        values.setdefault("opened", "")
        values["online"] = template != "export"
        values["with_other"] = self.other is not None
        values["compared"] = (self.out / COMPARISONS).is_dir()
        values["judged"] = bool(queries.rows(self.db, "any judged"))
        # An evaluation has verdicts and no distances: what is about training is left out.
        values["evaluated"] = values["judged"] and not queries.rows(self.db, "any scored")
        return _html.get_template(f"{template}.html.j2").render(
            here=entry, out=str(self.out), as_of=self.as_of, stamp=self.stamp, **values
        )

    @property
    def as_of(self) -> str:
        """When the snapshot was written, for people."""
        time = datetime.fromtimestamp((self._seen or (0, 0))[1] / 1e9, UTC)
        return time.strftime("%Y-%m-%d %H:%M:%S UTC")

    @property
    def stamp(self) -> str:
        """What tells the snapshot from every other: two may be written within one second."""
        return "-".join(map(str, self._seen or ()))


def overview(run: ShownRun) -> str:
    return run.render("overview", "/", **_overview(run))


def _overview(run: ShownRun) -> dict[str, Any]:
    lines, bars = run.charts
    return {"o": queries.overview_row(run.db), "dtc_chart": lines, "rac_chart": bars}


def cases(run: ShownRun, filters: Filters, number: int) -> str:
    page = queries.cases(run.db, filters, number)
    return _table_page(run, "cases", page, filters, choices=queries.choices(run.db))


def trajectories(run: ShownRun, filters: Filters, number: int) -> str:
    page = queries.trajectories(run.db, filters, number)
    return _table_page(run, "trajectories", page, filters, choices=queries.choices(run.db))


def failures(run: ShownRun, number: int) -> str:
    return _table_page(run, "failures", queries.failures(run.db, number), {})


def evaluation(run: ShownRun, filters: Filters, number: int) -> str:
    """What the judges found, a row a judged trajectory."""
    page = queries.judged(run.db, filters, number)
    judges = queries.rows(run.db, "evaluation")
    names = {name: sorted({row[name] for row in judges}) for name in ("teacher", "judge")}
    names["verdict"] = list(queries.JUDGED)
    return _table_page(run, "evaluation", page, filters, judges=judges, choices=names)


@dataclass(frozen=True, slots=True)
class Pair:
    """A case and run (sample) as two runs played it; None: not judged there."""

    case_id: str
    sample: int
    here: queries.Row | None
    there: queries.Row | None

    @property
    def change(self) -> str:
        here, there = (row["correct"] if row else None for row in (self.here, self.there))
        if here is None or there is None:
            return "one only"
        if here != there:
            return "gained" if there else "lost"
        return "both right" if here else "both wrong"


CHANGES = ("gained", "lost", "one only", "both wrong", "both right")


def comparison(run: ShownRun, other: ShownRun, filters: Filters) -> str:
    """Two evaluations side by side, what changed first. Gained: wrong here, right there."""
    here, there = (queries.verdicts_of(shown.db, shown.out) for shown in (run, other))
    pairs = [Pair(*key, here.get(key), there.get(key)) for key in sorted({*here, *there})]
    counts = {name: sum(pair.change == name for pair in pairs) for name in CHANGES}
    shown_pairs = [pair for pair in pairs if filters.get("change") in (None, "", pair.change)]
    # In the order of CHANGES: what got better or worse is what one looks for.
    shown_pairs.sort(key=lambda pair: (CHANGES.index(pair.change), pair.case_id, pair.sample))
    paths = (run.out, other.out)
    names = [path.name for path in paths]
    values: dict[str, Any] = {"pairs": shown_pairs, "counts": counts, "other": other.out}
    values |= {"names": names if names[0] != names[1] else paths, "wanted": filters}
    return run.render("comparison", "/comparison", **values)


def contaminated_pairs(run: ShownRun, filters: Filters, number: int) -> str:
    """The pairs of cases that `medaction contamination` found, the surest first."""
    reports = comparisons(run.out)
    pairs = [pair for report in reports for pair in report.pairs]
    choices = {
        "set": sorted({pair["against"] for pair in pairs}),
        "signal": sorted({name for pair in pairs for name in pair["found_by"]}),
    }
    wanted = {name: filters[name] for name in choices if filters.get(name)}
    words = filters.get("q", "").lower()
    columns = ("case_id", "other_id", "title_of_case", "title_of_other")
    shown = [
        pair
        for pair in pairs
        if wanted.get("set") in (None, pair["against"])
        and wanted.get("signal") in (None, *pair["found_by"])
        and words in " ".join(pair[name] for name in columns).lower()
    ]
    page = queries.page_of(shown, number)
    abouts = [report.about for report in reports]
    return _table_page(run, "contamination", page, filters, reports=abouts, choices=choices)


def pair(run: ShownRun, place: int) -> str | None:
    """Both cases of a pair side by side, or None when there is no such pair."""
    details = pair_at(run.out, place)
    if details is None:
        return None
    last = sum(len(report.pairs) for report in comparisons(run.out)) - 1
    known = bool(queries.rows(run.db, "thing of a label", [details["case_id"], ""]))
    return run.render("pair", "/contamination", p=details, last=last, known=known)


def label(run: ShownRun, values: dict[str, str]) -> str:
    """Store a label that came from a form; returns the address of what it is about. Raises
    ValueError for what is not in this run, and for anything that is no label."""
    opinion = label_of(
        # The time is ours: a form could name any.
        {name: text[:LONGEST] for name, text in values.items()} | {"time": now().isoformat()}
    )
    # A stale page, or a hand-made form: a label of nothing would stay in the file.
    if not queries.rows(run.db, "thing of a label", [opinion.case_id, opinion.trajectory_id]):
        raise ValueError("there is no such case or trajectory in this run")
    if opinion.opinion == "comment" and not opinion.comment.strip():
        raise ValueError("a comment needs words")
    add_label(run.out, opinion)
    return f"/case/{quote(opinion.case_id, safe='')}"


def labels_page(run: ShownRun) -> str:
    """Every label of the run, the newest first."""
    rows = sorted(labels(run.out), key=lambda label: label.time, reverse=True)
    players = {row["trajectory_id"]: row for row in queries.rows(run.db, "players")}
    return run.render("labels", "/labels", labels=rows, players=players)


def prompt(run: ShownRun, trajectory_id: str, number: int) -> str | None:
    """The prompt of a turn, or None when there is no such trajectory."""
    answer = queries.turn_prompt(run.db, trajectory_id, number)
    if answer is None:
        return None
    record, messages = answer
    return run.render("prompt", "/cases", played=record, number=number, messages=messages)


def _table_page(
    run: ShownRun, name: str, page: queries.Page, filters: Filters, **values: Any
) -> str:
    # Empty fields of the form would make long addresses.
    query = {field: value for field, value in filters.items() if value}

    def url(number: int) -> str:
        return f"/{name}?{urlencode(query | {'page': number})}"

    def by(column: str) -> str:
        """The page sorted by a column; by the same one again: the other way."""
        sort = f"-{column}" if query.get("sort") == column else column
        return f"/{name}?{urlencode(query | {'sort': sort})}"

    return run.render(name, f"/{name}", page=page, wanted=filters, url=url, by=by, **values)


def case(run: ShownRun, case_id: str, opened: str = "") -> str | None:
    """The page of a case, or None when the run has no such case. `opened`: the trajectory that is
    open; by default the first."""
    details = queries.case(run.db, case_id)
    if details is None:
        return None
    opinions = {label.thing: label for label in labels(run.out) if label.case_id == case_id}
    return run.render("case", "/cases", c=details | {"labels": opinions}, opened=opened)


def export(run: ShownRun, case_ids: list[str]) -> str:
    """One HTML file with the overview and these cases whole, that needs nothing else; without ids
    all cases. Raises KeyError for a case that is not there."""
    details = []
    run_labels = labels(run.out)
    for case_id in case_ids or [row["case_id"] for row in queries.rows(run.db, "case ids")]:
        if (case := queries.case(run.db, case_id)) is None:
            raise KeyError(case_id)
        opinions = {label.thing: label for label in run_labels if label.case_id == case_id}
        details.append(case | {"labels": opinions})
    ids = {case["case_id"] for case in details}
    pages = queries.cases(run.db, {}, 1).pages
    # Page by page, as the table is read: the query has no other form.
    tables = (queries.cases(run.db, {}, number) for number in range(1, pages + 1))
    rows = [row for table in tables for row in table.rows if row["case_id"] in ids]
    values = _overview(run) | {"shown": details, "listed": rows}
    return run.render("export", "", **values, at=lambda case_id: f"#case-{case_id}")
