"""Flows whose Prefect server is away: their work is done all the same, and nobody waits for it."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from httpx import HTTPError
from prefect import Flow
from prefect.exceptions import Abort
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from medaction.flows.artifacts import ANSWERED_WITHIN_S, flow_run_id, prefect_answers

log = logging.getLogger("medaction")


class Unseen(Abort):
    """A flow's work is done, with this `result`, and its server is away. Prefect's engine lets an
    Abort through at once; to set the run's state it would ask a server that hangs for a minute."""

    def __init__(self, result: Any) -> None:
        super().__init__("the Prefect server is away")
        self.result = result


def aborting_unseen(work: Callable[..., Any]) -> Callable[..., Any]:
    """A flow's function that raises Unseen with its result where nobody would take its state."""

    @functools.wraps(work)
    def run(*arguments: Any) -> Any:
        result = work(*arguments)
        if not prefect_answers(ANSWERED_WITHIN_S):
            raise Unseen(result)
        return result

    return run


def shown(flow: Flow[..., Any], settings: Any, *more: Any) -> Any:
    """What a flow gives, as a flow run while its Prefect server answers, else by its work alone.
    Also for a flow within another, each of which asks the server."""
    if prefect_answers(ANSWERED_WITHIN_S):
        seen = flow.with_options()
        seen.fn = aborting_unseen(flow.fn)
        try:
            return seen(settings, *more)
        except Unseen as end:
            return end.result
        except HTTPError as error:
            if not _of_prefect(error):
                raise  # a hub's, of models or data
            reason = str(error) or type(error).__name__
            log.warning("Prefect's server is lost (%s): the run goes on without it", reason)
    # What was done is stored.
    if flow_run_id():
        return flow.fn(settings, *more)
    # Ray's cases would be tasks of a flow run; a task without one asks the server, as often as
    # `IMPATIENT` says, where results are to be kept.
    if "engine" in type(settings).model_fields:
        settings = settings.model_copy(update={"engine": "local"})
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 0.1}):
        return flow.fn(settings, *more)


def _of_prefect(error: HTTPError) -> bool:
    try:
        return str(error.request.url).startswith(str(PREFECT_API_URL.value()))
    except RuntimeError:  # no request is known: huggingface_hub's own class loses it
        return False
