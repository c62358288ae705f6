"""The viewer as a web application on loopback: pages rendered here."""

import threading
from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from medaction.trajectories.viewer import pages


def app_of(out: Path, against: Path | None = None) -> Starlette:
    """The application that shows the run in `out`, beside the one in `against`. Raises
    FileNotFoundError when one has no snapshot."""
    other = pages.ShownRun(against) if against else None
    run, one_at_a_time = pages.ShownRun(out, other), threading.Lock()

    def page(render: Callable[[Request], str | None]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            with one_at_a_time:  # a DuckDB connection serves one thread
                run.refresh()
                if other:
                    other.refresh()
                html = render(request)
            return HTMLResponse(
                html if html is not None else "there is no such page",
                200 if html is not None else 404,
            )

        return answer

    def filters(request: Request) -> dict[str, str]:
        return {name: value[:200] for name, value in request.query_params.items() if name != "page"}

    def number(request: Request) -> int:
        text = request.query_params.get("page", "1")
        return int(text) if text.isdecimal() and len(text) < 9 else 1

    def file(request: Request) -> Response:
        """A case as one HTML file, to be kept or sent."""
        case_id = request.path_params["case_id"]
        with one_at_a_time:
            try:
                html = pages.export(run, [case_id])
            except KeyError:
                return HTMLResponse("there is no such case", 404)
        headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(case_id)}.html"}
        return HTMLResponse(html, headers=headers)

    def as_of(_: Request) -> Response:
        """Which snapshot is the newest: open pages ask, and load it."""
        with one_at_a_time:
            run.refresh()
            return PlainTextResponse(run.stamp)

    async def label(request: Request) -> Response:
        """Store a clinician's label and go back to where it was given. Only from our own pages."""
        if request.headers.get("origin") != f"http://{request.headers.get('host')}":
            return HTMLResponse("labels are taken from the viewer's own pages only", 403)
        form = parse_qs((await request.body()).decode("utf-8", "replace")[:20_000])
        values = {name: texts[0] for name, texts in form.items()}
        back = values.pop("back", "/")
        try:
            with one_at_a_time:
                place = pages.label(run, values)
        except ValueError as error:
            return HTMLResponse(escape(str(error)), 400)
        return RedirectResponse(back if back.startswith("/case/") else place, 303)

    routes = [
        Route("/label", label, methods=["POST"]),
        Route("/labels", page(lambda request: pages.labels_page(run))),
        Route("/", page(lambda request: pages.overview(run))),
        Route("/cases", page(lambda request: pages.cases(run, filters(request), number(request)))),
        Route(
            "/trajectories",
            page(lambda request: pages.trajectories(run, filters(request), number(request))),
        ),
        Route("/failures", page(lambda request: pages.failures(run, number(request)))),
        Route(
            "/case/{case_id}",
            page(
                lambda request: pages.case(
                    run, request.path_params["case_id"], request.query_params.get("open", "")
                )
            ),
        ),
        Route("/file/{case_id}", file),
        Route("/as-of", as_of),
        Route(
            "/evaluation",
            page(lambda request: pages.evaluation(run, filters(request), number(request))),
        ),
        Route(
            "/prompt/{trajectory_id}/{number:int}",
            page(lambda request: pages.prompt(run, **request.path_params)),
        ),
    ]
    if other:
        compared = page(lambda request: pages.comparison(run, other, filters(request)))
        routes.append(Route("/comparison", compared))
    # Only by its own name: a page elsewhere cannot reach it through a name that it points here.
    return Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, ["127.0.0.1", "localhost", "testserver"])],
    )
