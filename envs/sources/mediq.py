"""MediQ's interactive cases (JSON Lines; iMedQA and iCraft-MD,
https://github.com/stellalisy/mediQ): sentences and a question.

A row has id, question, context (a list of sentences), options, answer and answer_idx, and often
facts and patient, which say the context again. Tests are not told apart, so a model has to extract
them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medaction.envs.records import BadCase, CaseReport, Loss, check_id, sample_of
from medaction.envs.sources.agentclinic import asks_for_diagnosis
from medaction.envs.sources.files import bad_field, read_rows, text_at, unread_fields

MEDIQ_LICENCE = "CC BY 4.0"
"""What the repository's readme puts the work under."""

_KEYS = {"id", "question", "context", "answer"}
# The same sentences in another form: a second reading would double every fact.
_AGAIN = {"facts", "atomic_facts", "patient", "initial_info"}
"""Fields that say the context again."""


def read(path: Path) -> Iterator[CaseReport | BadCase]:
    """The cases of one file, one a line, without structure; ids are 'mediq', the file's stem and
    the row's id.

    The text is the context, the question and its answer, which is the true diagnosis. A bad row is
    yielded as BadCase and the others go on, so is one that asks for something else
    ('not_a_diagnosis'). Raises BadCase when the file cannot be read.
    """
    for number, row in read_rows(path):
        try:
            if isinstance(row, BadCase):
                raise row
            yield _case_of_question(row, path, f" line {number}")
        except BadCase as bad:
            # A row without an id needs one too: the store keeps failures by case.
            row_id = f"mediq-{path.stem}-line-{number}"[:100]
            yield BadCase(bad.reason, bad.message, bad.case_id or row_id, str(path))


def recognises(row: Any) -> bool:
    """Whether a row has MediQ's form."""
    return isinstance(row, dict) and set(row) >= _KEYS


def _case_of_question(row: Any, path: Path, place: str) -> CaseReport:
    question = text_at(row, "question", path, place).strip()
    answer = text_at(row, "answer", path, place).strip()
    case_id = check_id(f"mediq-{path.stem}-{_number_of_question(row, path, place)}")
    context = row.get("context")
    # Not parted into sentences it is the same story.
    context = [context] if isinstance(context, str) else context
    is_list = isinstance(context, list) and all(isinstance(part, str) for part in context)
    if not is_list or not any(map(str.strip, context)):
        message = f"{path.name}{place}: 'context' must be a text or a list of sentences"
        raise BadCase("bad_field", message, case_id)
    if not asks_for_diagnosis(question):
        message = f"{path.name}{place}: the question is {question[:120]!r}"
        raise BadCase("not_a_diagnosis", message, case_id)
    sentences = (sentence.strip() for sentence in context if sentence.strip())
    story = " ".join(
        # Tables end their rows with '|'.
        sentence if sentence.endswith((".", "!", "?", "|")) else f"{sentence}."
        for sentence in sentences
    )
    text = f"{story}\n{question}\nDiagnosis: {answer}"
    # As in most titles of case reports; without a paragraph more that names it no extractor's
    # diagnosis would be believed.
    title = f"{answer} (MediQ case {path.stem} {row['id']})"
    return CaseReport(
        case_id,
        "mediq",
        title[:300],
        text,
        str(path),
        MEDIQ_LICENCE,
        losses=tuple(_losses_of_question(row, answer)),
    )


def _losses_of_question(row: dict[str, Any], answer: str) -> Iterator[Loss]:
    options = row.get("options")
    # A dict by letter or a list, as the file's version has it.
    options = list(options.values()) if isinstance(options, dict) else options
    if isinstance(options, list) and (wrong := [text for text in options if text != answer]):
        reason = "an option of the question that is not its answer"
        yield Loss("answer", len(wrong), reason, sample_of(wrong[0]))
    again = [key for key in sorted(_AGAIN & set(row)) if row[key]]
    if again:
        yield Loss("field", len(again), "it says the context again", sample_of(row[again[0]]))
    yield from unread_fields(row, _KEYS | _AGAIN | {"options", "answer_idx"})


def _number_of_question(row: Any, path: Path, place: str) -> str:
    number = row.get("id")
    if isinstance(number, bool) or not isinstance(number, int | str):
        message = f"'id' must be a number or a string, not {type(number).__name__}"
        raise bad_field(path, place, message)
    return str(number)
