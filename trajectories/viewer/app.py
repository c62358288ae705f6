"""The viewer as a web application on loopback: pages rendered here."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from medaction.trajectories.viewer import pages, queries
from medaction.words.errors import WrongUse


def app_of(out: Path, against: Path | None = None) -> Starlette:
    """The application that shows the run in `out`, beside the one in `against`. Raises
    FileNotFoundError when one has no snapshot, and WrongUse where one of two is no evaluation."""
    viewer = _Viewer(out, against)

    def case(run: pages.ShownRun, request: Request) -> str | None:
        opened = request.query_params.get("open", "")
        return pages.case(run, request.path_params["case_id"], opened)

    def by_path(page: Callable[..., str | None]) -> Callable[..., str | None]:
        return lambda run, request: page(run, **request.path_params)

    routes = [
        viewer.page("/", by_path(pages.overview)),
        viewer.table("/cases", pages.cases),
        viewer.table("/trajectories", pages.trajectories),
        viewer.table("/evaluation", pages.evaluation),
        viewer.table("/failures", lambda run, _, number: pages.failures(run, number)),
        viewer.page("/labels", by_path(pages.labels_page)),
        viewer.table("/contamination", pages.contaminated_pairs),
        viewer.page("/contamination/{place:int}", by_path(pages.pair)),
        viewer.page("/case/{case_id}", case),
        viewer.page("/prompt/{trajectory_id}/{number:int}", by_path(pages.prompt)),
        Route("/file/{case_id}", viewer.file),
        Route("/as-of", viewer.as_of),
        Route("/label", viewer.label, methods=["POST"]),
    ]
    if other := viewer.other:
        routes.append(
            viewer.table("/comparison", lambda run, query, _: pages.comparison(run, other, query))
        )
    # Only by its own name: a page elsewhere cannot reach it through a name that it points here.
    names = Middleware(TrustedHostMiddleware, ["127.0.0.1", "localhost", "testserver"])
    return Starlette(routes=routes, middleware=[names])


def _filters_and_page(request: Request) -> tuple[dict[str, str], int]:
    """What a table's address asks for: (filters, page)."""
    # A search of megabytes would only slow every other reader down.
    filters = {name: text[:200] for name, text in request.query_params.items() if name != "page"}
    page = request.query_params.get("page", "1")
    # `int` fails on '²', a digit but no decimal, and on thousands of digits.
    return filters, int(page) if page.isdecimal() and len(page) < 9 else 1


class _Viewer:
    """The run that is shown, and the one beside it."""

    def __init__(self, out: Path, against: Path | None):
        self.other = pages.ShownRun(against) if against else None
        self.run = pages.ShownRun(out, self.other)
        for run in [self.run, self.other] if self.other else []:
            if not queries.rows(run.db, "any evaluation"):
                raise WrongUse(
                    f"{run.out} is no evaluation: --against puts two runs of `medaction evaluate`"
                    " beside each other"
                )
        self._lock = threading.Lock()

    @contextmanager
    def newest(self) -> Iterator[pages.ShownRun]:
        """The run as its newest snapshot has it, for one request at a time: a DuckDB connection
        serves one thread."""
        # Starlette answers each request in a thread of its own.
        with self._lock:
            self.run.refresh()
            if self.other:
                self.other.refresh()
            yield self.run

    def page(self, path: str, render: Callable[[pages.ShownRun, Request], str | None]) -> Route:
        def answer(request: Request) -> Response:
            with self.newest() as run:
                html = render(run, request)
            none = HTMLResponse("there is no such page", 404)
            return none if html is None else HTMLResponse(html)

        return Route(path, answer)

    def table(self, path: str, render: Callable[..., str]) -> Route:
        """A page whose address says which rows are shown."""
        return self.page(path, lambda run, request: render(run, *_filters_and_page(request)))

    def file(self, request: Request) -> Response:
        """A case as one HTML file, to be kept or sent."""
        case_id = request.path_params["case_id"]
        try:
            with self.newest() as run:
                html = pages.export(run, [case_id])
        except KeyError:
            return HTMLResponse("there is no such case", 404)
        # Quoted: a case's id may hold line breaks or other letters than a header allows.
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(case_id)}.html"}
        return HTMLResponse(html, headers=headers)

    def as_of(self, _: Request) -> Response:
        """Which snapshot is the newest: open pages ask, and load it."""
        with self.newest() as run:
            return PlainTextResponse(run.stamp)

    async def label(self, request: Request) -> Response:
        """Store a clinician's label and go back to where it was given. Only from our own pages."""
        # A form on any other page may send here, too: the browser then names that page.
        if request.headers.get("origin") != f"http://{request.headers.get('host')}":
            return HTMLResponse("labels are taken from the viewer's own pages only", 403)
        form = parse_qs((await request.body()).decode("utf-8", "replace")[:20_000])
        values = {name: texts[0] for name, texts in form.items()}
        back = values.pop("back", "/")
        try:
            with self.newest() as run:
                place = pages.label(run, values)
        except ValueError as error:
            return HTMLResponse(escape(str(error)), 400)
        # Only to our own pages: another address in the form would lead away.
        return RedirectResponse(back if back.startswith("/case/") else place, 303)
