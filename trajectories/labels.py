"""What clinicians say of a run: accepted, rejected, or a comment, on a turn, an environment or a
judge's verdict.

The labels are lines of JSON in `labels.jsonl` beside the run's store. The file is only ever added
to, in one write a label, so that a label neither waits for a run under way nor holds it up. The
newest label of a thing counts; the earlier ones stay on record.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from medaction.words.errors import MedactionError

FILE = "labels.jsonl"
LONGEST = 2000
"""Characters of a comment; a label stays one write of the operating system."""

LabelKind = Literal["turn", "environment", "verdict"]
Opinion = Literal["accept", "reject", "comment"]
KINDS, OPINIONS = get_args(LabelKind), get_args(Opinion)


@dataclass(frozen=True, slots=True)
class Label:
    """One opinion. `number` is a turn's; `judge` (its key and repeat) a verdict's; '' and 0 where
    the kind has none. `time` is ISO 8601, UTC."""

    kind: LabelKind
    case_id: str
    opinion: Opinion
    time: str
    trajectory_id: str = ""
    number: int = 0
    judge: str = ""
    comment: str = ""
    by: str = ""

    @property
    def thing(self) -> tuple[str, str, str, int, str]:
        """What the label is about."""
        return self.kind, self.case_id, self.trajectory_id, self.number, self.judge


_LABEL_RECORD = TypeAdapter(Label)


def label_of(values: dict[str, Any]) -> Label:
    """A label from text fields. Raises ValueError for a kind or an opinion that there is not."""
    return _LABEL_RECORD.validate_python(values)


def add_label(out: Path, label: Label) -> None:
    """Add a label to those of the run in `out`. Raises OSError when it cannot be written."""
    # One line in one write with O_APPEND: two viewers never mix their labels.
    line = json.dumps(asdict(label), ensure_ascii=False) + "\n"
    file = os.open(out / FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)  # a person's words
    try:
        os.write(file, line.encode())
        os.fsync(file)  # what a clinician said is on the disk before the page says so
    finally:
        os.close(file)


def history(out: Path) -> Iterator[Label]:
    """Every label of the run, in the order in which they were given. Raises MedactionError naming
    the line that is none."""
    path = out / FILE
    if not path.exists():
        return
    # Bytes end a line at CR and LF alone; text would at other characters too, that a comment may
    # have.
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            yield _LABEL_RECORD.validate_json(line)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise MedactionError(f"{path}:{number}: no label ({reason}): mend the line") from error


def labels(out: Path) -> list[Label]:
    """The newest label of everything that has one. A comment leaves the opinion as it was."""
    newest: dict[tuple[str, str, str, int, str], Label] = {}
    for label in history(out):
        before = newest.get(label.thing)
        if before and label.opinion == "comment":
            fields = asdict(before) | {"comment": label.comment, "by": label.by}
            # The former opinion with the new words: a comment is not meant to take it back.
            label = Label(**fields | {"time": label.time})
        newest[label.thing] = label
    return list(newest.values())


def rejected(out: Path) -> tuple[set[str], set[tuple[str, int]]]:
    """Cases whose environment is rejected, and (trajectory, number) of rejected turns: they are no
    records of the dataset."""
    given = [label for label in labels(out) if label.opinion == "reject"]
    cases = {label.case_id for label in given if label.kind == "environment"}
    turns = {(label.trajectory_id, label.number) for label in given if label.kind == "turn"}
    return cases, turns
