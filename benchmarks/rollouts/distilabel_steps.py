"""The step between two turns of a distilabel pipeline; a module of its own, because its processes
import it by name."""

import json

from distilabel.steps import Step, StepInput
from play import turn_of


class AskNext(Step):
    """Appends the reply and the next turn's question to the chat."""

    @property
    def inputs(self):
        return ["messages", "generation", "number"]

    @property
    def outputs(self):
        return ["messages", "number"]

    def process(self, inputs: StepInput):
        for row in inputs:
            json.loads(row["generation"])
            row["number"] += 1
            row["messages"] = turn_of(
                [*row["messages"], {"role": "assistant", "content": row["generation"]}],
                row["number"],
            )
        yield inputs
