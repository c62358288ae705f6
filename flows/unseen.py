"""The end of a flow whose Prefect server is away."""

import functools
from collections.abc import Callable
from typing import Any

from prefect.exceptions import Abort

from medaction.flows.artifacts import ANSWERED_WITHIN_S, flow_run_id, lost
from medaction.flows.configured import unseen
from medaction.flows.prefect_server import server_answers


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
        result, id_ = work(*arguments), flow_run_id()
        if id_ and (id_ in lost or not server_answers(ANSWERED_WITHIN_S)):
            unseen.add(id_)
            raise Unseen(result)
        return result

    return run
