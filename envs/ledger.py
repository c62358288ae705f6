"""What became of a report's text: which passages the initial observation, the menu or the diagnosis
took over, which nothing did, and why.

A passage is taken over where at least half of its runs of three words stand there: sources and
extractors copy, and drop bullets, labels and asides.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medaction.envs.documented import without_void
from medaction.envs.grounding import patient_sections
from medaction.envs.records import ARTICLES, CaseReport, LedgerLine, Use, sample_of

RUN = 3
"""Words in a row that are compared."""

TAKEN_OVER = 0.5
"""Share of a passage's runs from which on it was taken over. On 40 summaries of MedR-Bench, whose
bullets are either copied or left out, the shares lie below 0.2 or above 0.8."""

IN_PIECES = 0.7
"""Share of the runs within a passage's pieces from which on these were taken over one by one:
chosen on the passages of 30 real cases, which were read."""

NOTED = 0.85
"""Share of a note's runs that its passage has, our choice: a note's last word may be broken."""

RUNS_OF_A_NOTE = 10
"""Runs from which on a note may be the beginning of a passage: our choice; of a word or two any
passage may have all."""

# A full stop without a space behind it ends nothing: '3.5'.
_PASSAGE = re.compile(r"[^\n.;!?。；]+(?:[.;!?](?!\s)[^\n.;!?]*)*[.;!?。；]*\s*")
_TABLE_LINE = re.compile(
    r"\s*table\s+[\divx]+\b|[^|\n]*\|[^|\n]*\||[^\t\n]+\t[^\t\n]+", re.IGNORECASE
)
_FIGURE = re.compile(r"\s*fig(?:ure|\.)\s*\d+\b", re.IGNORECASE)
# A number or a label on a line of its own: what it numbers stands behind it.
_LABEL = re.compile(r"(?:(?:fig(?:ure|\.)?|table)\s+)?(?:\d\d?|[ivx]{1,4})[.:]?", re.IGNORECASE)
# A heading with labelled values behind it.
_HEADING = re.compile(r"^[^:,;]{3,60}:(?=[^:]{1,60}:)")
# Notes of a case name a reason and then the words that it is about.
_NOTED_LOSS = re.compile(r"(?P<reason>[^:]{5,80}): (?P<words>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of the report's text, what took it over, and why nothing did."""

    text: str
    use: Use
    reason: str = ""


def passages(
    text: str, observation: str, results: Iterable[str], diagnosis: str, notes: Iterable[str] = ()
) -> Iterator[Passage]:
    """`text` in passages, in order; together they are `text`.

    `results` are the menu's results and quotes with their tests' names, `notes` the environment's
    warnings, which tell why something was left out.
    """
    uses: dict[Use, frozenset[str]] = {
        "observation": _runs(observation),
        "menu": frozenset().union(*map(_runs, results)),
        "diagnosis": _runs(f"Diagnosis: {diagnosis}"),
    }
    of_any = frozenset().union(*uses.values())
    reasons = [
        (match["reason"], _runs(match["words"]))
        for note in notes
        if (match := _NOTED_LOSS.match(note))
    ]
    end = 0
    for match in _PASSAGE.finditer(text):
        # Together the passages are the text: what no pattern matches is given too.
        if match.start() > end:
            yield Passage(text[end : match.start()], "nothing")
        end = match.end()
        if _LABEL.fullmatch(match[0].strip()):
            yield Passage(match[0], "nothing", "a heading or a mark")
        elif use := _use_of(match[0], uses, of_any):
            yield Passage(match[0], use)
        else:
            yield Passage(match[0], "nothing", _reason_of(match[0], reasons))
    if end < len(text):
        yield Passage(text[end:], "nothing")


def ledger_of(
    report: CaseReport, observation: str, results: Iterable[str], diagnosis: str, notes: list[str]
) -> tuple[LedgerLine, ...]:
    """The sums: characters, lines of text, rows of tables and figures' captions by what took them
    over, then what the source itself left out.

    Where the text holds a summary of the article (MedR-Bench), the summary is what is accounted
    for; the article before it is one line.
    """
    start = int(report.meta.get("summary_at", 0))
    lines: Counter[tuple[str, Use, str]] = Counter()
    samples: dict[tuple[str, Use, str], str] = {}
    total: Counter[str] = Counter()
    is_caption = False
    own, at = _own_sections(report)[start:], 0
    for passage in passages(report.text[start:], observation, results, diagnosis, notes):
        words, at = passage.text.strip(), at + len(passage.text)
        if not words:
            continue
        reason = passage.reason
        if passage.use == "nothing" and not reason:
            is_elsewhere = not own[at - len(passage.text) : at].strip()
            reason = _reason_of_place(words == report.title, is_elsewhere)
        kind_of_line = "figure captions" if is_caption else _kind_of(words)
        is_caption = _LABEL.fullmatch(words) is not None and _FIGURE.match(words) is not None
        for kind, count in (("characters", len(words)), (kind_of_line, 1)):
            key = kind, passage.use, reason
            lines[key] += count
            total[kind] += count
            samples.setdefault(key, sample_of(words))
    ledger = [
        LedgerLine(
            kind, use, count, round(count / total[kind], 4), reason, samples[kind, use, reason]
        )
        for (kind, use, reason), count in sorted(lines.items())
    ]
    if start:
        why = "the article behind the summary"
        sample = sample_of(report.text)
        ledger.append(LedgerLine("article characters", "nothing", start, 1.0, why, sample))
    ledger += [
        LedgerLine(loss.kind, "nothing", loss.count, 1.0, loss.reason, loss.sample)
        for loss in report.losses
    ]
    return tuple(ledger)


def _own_sections(report: CaseReport) -> str:
    """The text with spaces for the sections about other patients, of an article or a letter."""
    if report.source not in ARTICLES:
        return report.text
    return patient_sections(report.text, has_abstract=report.source != "text")


def _reason_of_place(is_title: bool, is_elsewhere: bool) -> str:
    if is_title:
        return "the title"
    return "of the abstract, or a section about what is known" if is_elsewhere else ""


def _use_of(passage: str, uses: Mapping[Use, frozenset[str]], of_any: frozenset[str]) -> Use | None:
    """What took the passage over: whole, or piece by piece, as entries and sentences are cut from
    it: 'Blood tests: WBC: Normal; CRP: 3'. `of_any`: the runs of all uses."""
    for runs_of, least in ((_longest_runs, TAKEN_OVER), (_runs_apart, IN_PIECES)):
        runs = runs_of(passage)
        if _share(runs, of_any) >= least:
            # The largest share; of equal ones the first, so o1 before the menu.
            return max(uses, key=lambda use: _share(runs, uses[use]))
    return None


def _reason_of(passage: str, reasons: Sequence[tuple[str, frozenset[str]]]) -> str:
    """The reason of the note that has half of the passage, or of which the passage has all: a note
    holds the beginning of a long one."""
    if not reasons:
        return _form_of(passage)
    runs, of_passage = _longest_runs(passage), _runs(passage)
    for reason, noted in reasons:
        is_beginning = len(noted) >= RUNS_OF_A_NOTE and _share(noted, of_passage) >= NOTED
        if is_beginning or _share(runs, noted) >= TAKEN_OVER:
            return reason
    return _form_of(passage)


def _kind_of(passage: str) -> str:
    if _LABEL.fullmatch(passage):
        return "sentences"
    if _TABLE_LINE.match(passage):
        return "table rows"
    return "figure captions" if _FIGURE.match(passage) else "sentences"


def _form_of(passage: str) -> str:
    """Why nothing takes over a passage that tells nothing: a heading, a mark, 'None provided'."""
    words = passage.replace("*", "").strip(" -•#\n")
    if not any(map(str.isalpha, words)) or words.endswith(":"):
        return "a heading or a mark"
    return "" if without_void(words).strip() else "says that nothing is documented"


def _runs(text: str) -> frozenset[str]:
    """The runs of up to RUN words: 'Fever.' has none of three."""
    words = re.findall(r"\w+", text.casefold())
    return frozenset().union(*(_runs_of(words, size) for size in range(1, RUN + 1)))


def _longest_runs(passage: str) -> frozenset[str]:
    """The runs of RUN words, or the one of all words of a shorter passage."""
    words = re.findall(r"\w+", passage.casefold())
    return _runs_of(words, min(RUN, len(words)))


def _runs_of(words: list[str], size: int) -> frozenset[str]:
    if not words:
        return frozenset()
    return frozenset(" ".join(words[at : at + size]) for at in range(len(words) - size + 1))


def _runs_apart(passage: str) -> frozenset[str]:
    """The longest runs within each piece of a list, without the heading before it: in the menu
    'WBC: Normal' of 'Blood tests: WBC: Normal; CRP: 3 mg/L' stands alone."""
    return frozenset().union(*map(_longest_runs, re.split("[,;]", _HEADING.sub("", passage))))


def _share(runs: frozenset[str], taken_runs: frozenset[str]) -> float:
    return len(runs & taken_runs) / len(runs) if runs else 0.0
