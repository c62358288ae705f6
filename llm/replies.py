"""Structured replies: one JSON object, read from what a model wrote."""

import json
import re
from typing import Any

from medaction.llm.untrusted import plain
from medaction.llm.usage import Usage


class MalformedReply(ValueError):
    """A reply outside the grammar. The message tells the model what to mend; `raw` is the reply as
    it came.

    `usage` is what the turn had used by then, as far as whoever raised or passed it on knew.
    """

    usage = Usage()

    def __init__(self, message: str, raw: str = ""):
        super().__init__(message)
        self.message = message
        self.raw = raw

    def __reduce__(self):  # so that a worker process can hand it back whole
        return type(self), (self.message, self.raw), {"usage": self.usage}


def split_thinking(text: str) -> tuple[str, str]:
    """(thinking, reply). Chat templates that open <think> in the prompt leave only its end in the
    text."""
    text = text.strip()
    found = re.match(r"(?:<think>)?(?P<thinking>.*?)</think>", text, re.DOTALL)
    if found is None or text.startswith(("{", "```")):
        return "", text
    return plain(found["thinking"]).strip(), text[found.end() :].strip()


def json_object(body: str) -> dict[str, Any]:
    """Raises ValueError in words that a model can act on."""
    if not body:
        raise ValueError("the reply is empty; write the JSON object")
    if body.startswith("<think>"):
        raise ValueError(
            "the thinking did not end; close it with </think> and write the JSON object after it"
        )
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*?)\n?\s*```", body, re.DOTALL)
    try:
        loaded = json.loads(fenced[1] if fenced else body, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        near = error.doc[max(0, error.pos - 20) : error.pos + 20]
        raise ValueError(
            f"the reply is not one JSON object: {error.msg} near {near!r}; write nothing before or after it"
        ) from None
    except RecursionError:
        raise ValueError(
            "the reply is nested too deeply to be the JSON object that was asked for"
        ) from None
    if not isinstance(loaded, dict):
        raise ValueError(f"the reply is a JSON {type(loaded).__name__}, not an object")
    return loaded


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    loaded = dict(pairs)
    if len(loaded) < len(pairs):
        raise ValueError("a key stands twice in the same object; write each key once")
    return loaded
