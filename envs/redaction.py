"""Cutting what must not be told out of an initial observation: whole sentences, items of lists and
asides in brackets, never a word of what stays."""

import re
from dataclasses import dataclass, replace

from medaction.envs import checks
from medaction.envs.records import CaseReport, CheckResult, StructuredCase

MOST = 0.3
"""Share of the initial observation's characters that may be cut; of a case that leaks more nothing
is cut, and it is refused."""

LEAST = 120
"""Characters that must be left."""

# '- Chief Complaint: pain' -> label '- Chief Complaint: '
_LABEL = re.compile(r"^\s*(?:[-*•]\s*)?(?:[A-Z][\w /&()'-]{2,45}:\s*)?")
# Not inside brackets.
_SENTENCE = re.compile(r"(?<=[.;!?])\s+(?![^()]*\))")
_ITEM = re.compile(r"(?<=[.;!?,])\s+(?![^()]*\))")
_ASIDE = re.compile(r"\s*\([^()]*\)")
# What means something else, or nothing, once the sentence before it is gone: 'Treated with
# chemotherapy.'
_HANGING = re.compile(
    r"""(?:subsequently|then|which|this|these|it|its|such|for\swhich|followed\sby|treated|managed|received|underwent|status\spost|s/p|controlled
    |diagnosed|confirmed|resected|on\s(?:chemo|immuno|radio)?therapy|(?:he|she|they|the\spatient)\s(?:was\s(?:treated|managed|given|started)|received|underwent)
    |the\s(?:disease|tumou?r|cancer|lesion|condition|mass|infection)|(?:chemo|radio|immuno)therapy|treatment|therapy)\b""",
    re.IGNORECASE | re.VERBOSE,
)
# What stands after these labels is a list of findings: its items can be cut one by one.
_LIST = re.compile(
    r"patient information|demographics|physical exam|review of systems", re.IGNORECASE
)
# So is a past history without a verb: 'Eosinophilia, previous brucellosis, hydronephrosis surgery.'
_PAST_LIST = re.compile(
    r"\W*past medical history:(?![^\n]*\b(?:was|were|had|has|is|treated|managed|diagnosed|received|underwent"
    r"|followed|with|for|which|after)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Redacted:
    """A case after cutting, what was cut, and its share of the characters (0 to 1).

    With nothing cut and a share above 0 the case is as it was: too much would have had to go.
    """

    case: StructuredCase
    cut: tuple[str, ...]
    share: float


def redact(report: CaseReport, case: StructuredCase) -> Redacted:
    """Cut what names the diagnosis, tells a test's result, or tells the outcome: asides in
    brackets, then sentences.

    A sentence is what ends with '.', ';', '!' or '?' or at the end of a line; after the label of a
    list it is also what ends with a comma. A line of which only its label is left goes too.
    Sentences of the chief complaint, and the very first one, which says who the patient is, are
    never cut: a case that leaks there keeps its leak, and is refused.
    """
    told = case.initial_observation
    complaint = checks.complaint_of(told)

    def leaks(text: str) -> bool:
        if checks.diagnosis_told(report, case, text) or any(
            checks.is_told(test, text, complaint) for test in case.tests
        ):
            return True
        return not checks.no_outcome_in_o1(report, replace(case, initial_observation=text)).passed

    if not leaks(told):
        return Redacted(case, (), 0.0)
    kept: list[str] = []
    cut: list[str] = []
    for number, line in enumerate(told.splitlines()):
        asides = [aside[0] for aside in _ASIDE.finditer(line) if leaks(aside[0])]
        for aside in asides:
            line = line.replace(aside, "", 1)
        label = _LABEL.match(line)[0]  # type: ignore[index]
        sentences = (_ITEM if _LIST.search(label) or _PAST_LIST.match(line) else _SENTENCE).split(
            line[len(label) :]
        )
        protected = len(sentences) if checks.COMPLAINT.search(label) else int(number == 0)
        gone: list[str] = []
        for place, sentence in enumerate(sentences):
            hangs = place > 0 and sentences[place - 1] in gone and _HANGING.match(sentence)
            if place >= protected and (hangs or leaks(label + sentence)):
                gone.append(sentence)
        cut += [*asides, *gone]
        if not gone:
            kept.append(line)
        elif stay := " ".join(sentence for sentence in sentences if sentence not in gone).rstrip(
            " ,;"
        ):
            kept.append(label + stay)
    text = "\n".join(kept)
    share = 1 - len(text) / len(told)
    if share > MOST or len(text) < LEAST:
        return Redacted(case, (), share)
    return Redacted(replace(case, initial_observation=text), tuple(map(str.strip, cut)), share)


def share_cut(redacted: Redacted) -> CheckResult:
    """How much had to go. Not required: what exceeds MOST is not cut at all, and is refused for its
    leak.

    Figure: the share of the characters, 0 to 1.
    """
    detail = f"{redacted.share:.0%} of the initial observation would have to be cut"
    return CheckResult(
        "redaction", redacted.share <= MOST, round(redacted.share, 3), MOST, detail, required=False
    )
