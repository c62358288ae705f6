"""Taking what must not be told out of an initial observation: asides in brackets, clauses and whole
sentences, never a word of what stays.

A result that the observation tells becomes an entry of the menu, in its own words. What names the
diagnosis or the outcome is cut.
"""

import re
from dataclasses import dataclass, field, replace

from medaction.envs.categories import category_of, minor_category_of
from medaction.envs.checks import outcomes_in
from medaction.envs.documented import is_documented
from medaction.envs.leaks import (
    COMPLAINT,
    LABEL,
    RELATIVE,
    SENTENCE_END,
    complaint_of,
    mentions_in,
    names_of_case,
)
from medaction.envs.records import CaseReport, CheckResult, DocumentedTest, StructuredCase
from medaction.envs.results_told import Statement, is_told, result_told

MOST = 0.5
"""Share of the initial observation's characters that may be cut (results that move to the menu do
not count); of a case that leaks more nothing is cut, and it is refused."""

_ASIDE = re.compile(r"\s*\([^()]*\)")
_CLAUSE_END = re.compile(r"(?<=[,;，；])\s+(?![^()]*\))")
# After these labels stands a list of findings: each item is told for itself.
_LIST = re.compile(r"patient information|demographics|physical exam|review of systems", re.I)
# So is a past history without a verb: 'Eosinophilia, previous brucellosis, hydronephrosis surgery.'
_VERB = re.compile(r"\b(?:was|were|had|has|is|treated|managed|diagnosed|received|underwent|which)\b")
# What means nothing once the sentence before it is gone: 'Treated with chemotherapy.'
_HANGING = re.compile(
    r"(?:subsequently|then|which|this|these|it|its|such|followed by|treated|managed|received"
    r"|underwent|status post|s/p|controlled|diagnosed|confirmed|resected|on \w*therapy"
    r"|(?:he|she|they|the patient) (?:was (?:treated|managed|given|started)|received|underwent)"
    r"|the (?:disease|tumou?r|cancer|lesion|condition|mass|infection)|\w*therapy|treatment)\b",
    re.IGNORECASE,
)
# A clause that turns back from a test to the patient.
_PATIENT = re.compile(r"(?:and |but )?(?:he|she|they|the patient|his|her)\b", re.IGNORECASE)
# Who the patient is, and where what follows about the disease begins: 'a woman of 19 years | with'.
_DEMOGRAPHICS = re.compile(
    r"\b\d+[- ](?:year|month|week|day)s?[- ]old\b.*?(?=,? (?:with|who|whose|diagnosed|presenting)\b|,)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Redacted:
    """A case after cutting: what was cut, what became entries of the menu, and the share of the
    characters that was cut (0 to 1).

    With nothing cut and a share above 0 the case is as it was: too much would have had to go.
    """

    case: StructuredCase
    cut: tuple[str, ...] = ()
    moved: tuple[DocumentedTest, ...] = ()
    share: float = 0.0


@dataclass(slots=True)
class _Cutter:
    """Goes through the lines of one observation."""

    report: CaseReport
    case: StructuredCase
    cut: list[str] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = names_of_case(self.report, self.case)
        self.complaint = complaint_of(self.case.initial_observation)

    def leaks(self, text: str) -> bool:
        return bool(
            any(not mention.excuse for mention in mentions_in(text, self.names, self.case))
            or any(is_told(test, text, self.complaint) for test in self.case.tests)
            or outcomes_in(text)
        )

    def line(self, line: str, is_first: bool) -> str:
        for aside in [match[0] for match in _ASIDE.finditer(line)]:
            if self.leaks(aside) or (result_told(aside) and not COMPLAINT.search(line[:40])):
                line = line.replace(aside, "", 1)
                self._take(aside.strip(" ()"))
        label = LABEL.match(line)[0]  # type: ignore[index]
        body = line[len(label) :]
        is_list = bool(_LIST.search(label)) or (
            label.casefold().startswith("past medical", 2) and not _VERB.search(body)
        )
        sentences: list[str] = []
        gone = False
        for place, sentence in enumerate(SENTENCE_END.split(body)):
            if COMPLAINT.search(label) or (is_first and place == 0):
                left = self._without_tail(label, sentence)
            elif gone and _HANGING.match(sentence):
                self.cut.append(sentence)
                left = ""
            else:
                left = self._sentence(label, sentence, is_list)
            gone = not left and bool(sentence.strip())
            sentences += [left] if left else []
        text = " ".join(sentences)
        return label + text if text or not body.strip() else ""

    def _without_tail(self, label: str, sentence: str) -> str:
        """A sentence that must stay, up to where it leaves the patient's age and sex."""
        who = _DEMOGRAPHICS.search(sentence)
        if who is None or COMPLAINT.search(label) or not self.leaks(sentence):
            return sentence
        head = sentence[: who.end()]
        if self.leaks(head):
            return sentence
        self._take(sentence[who.end() :].strip(" ,"))
        return head + "."

    def _sentence(self, label: str, sentence: str, is_list: bool) -> str:
        """What may stay of a sentence; the rest is taken."""
        if not self.leaks(label + sentence) and not _result(sentence):
            return sentence
        if (left := self._without_tail(label, sentence)) != sentence:
            return left
        clauses = _CLAUSE_END.split(sentence)
        stays: list[str] = []
        taken: list[str] = []
        in_result = False
        for number, clause in enumerate(clauses):
            result = _result(clause) is not None
            in_result = result or (in_result and not is_list and not _PATIENT.match(clause))
            hangs = bool(taken) and bool(_HANGING.match(clause)) and not is_list
            if in_result or hangs or self.leaks(label + clause):
                if number == 0 and not is_list and not result:
                    taken, stays = list(clauses), []  # its subject would be gone
                    break
                taken.append(clause)
            else:
                stays.append(clause)
        if not taken:  # only the sentence as a whole tells it
            taken, stays = clauses, []
        self._take(" ".join(taken))
        text = re.sub(r"^(?:and|but) ", "", " ".join(stays)).rstrip(" ,;")
        if not text:
            return ""
        ended = text if text.endswith((".", "!", "?", "。")) or taken[-1] != clauses[-1] else text + "."
        return ended[0].upper() + ended[1:] if not stays[0] == clauses[0] else ended

    def _take(self, text: str) -> None:
        text = text.strip(" ,;")
        if (statement := _result(text)) and is_documented(text):
            self.statements.append(statement)
        else:
            self.cut.append(text)


def _result(text: str) -> Statement | None:
    """A result of this patient: one of a relative is family history."""
    return None if RELATIVE.search(text) else result_told(text)


def redact(report: CaseReport, case: StructuredCase) -> Redacted:
    """Take out what names the diagnosis, tells a test's result, or tells the outcome.

    A sentence ends with '.', ';', '!' or '?' or with its line. Of a sentence only the clauses that
    leak go where its beginning can stand without them. The chief complaint, age and sex, and the
    very first sentence are never cut: a case that leaks there keeps its leak, and is refused.
    """
    cutter = _Cutter(report, case)
    observation = case.initial_observation
    lines = observation.splitlines()
    left = [cutter.line(line, number == 0) for number, line in enumerate(lines)]
    text = "\n".join(new for new, old in zip(left, lines, strict=True) if new or not old.strip())
    if text == observation:
        return Redacted(case)
    share = sum(map(len, cutter.cut)) / len(observation)
    if share > MOST:
        return Redacted(case, share=share)
    tests, moved = _with_statements(case.tests, cutter.statements, cutter.complaint)
    redacted = replace(case, initial_observation=text, tests=tests)
    return Redacted(redacted, tuple(cutter.cut), moved, share)


def _with_statements(
    tests: tuple[DocumentedTest, ...], statements: list[Statement], complaint: str
) -> tuple[tuple[DocumentedTest, ...], tuple[DocumentedTest, ...]]:
    """The menu with the results that the observation told, and the new entries. What an entry tells
    already is not added to it."""
    moved = [
        DocumentedTest(
            name[0].upper() + name[1:],
            category_of(name),
            statement.text,
            minor=minor_category_of(name, category_of(name)),
            quote=statement.text,
        )
        for statement in statements
        for name in statement.tests
        if not any(is_told(test, statement.text, complaint) for test in tests)
    ]
    return (*tests, *moved), tuple(moved)


def share_cut(redacted: Redacted) -> CheckResult:
    """How much had to go. Not required: what exceeds MOST is not cut at all, and is refused for its
    leak.

    Figure: the share of the characters, 0 to 1.
    """
    detail = f"{redacted.share:.0%} of the initial observation would have to be cut"
    return CheckResult(
        "redaction", redacted.share <= MOST, round(redacted.share, 3), MOST, detail, required=False
    )
