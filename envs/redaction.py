"""Taking what must not be told out of an initial observation: asides in brackets, clauses and whole
sentences, never a word of what stays.

A result that the observation tells becomes an entry of the menu, in its own words. What names the
diagnosis or the outcome is cut.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from medaction.envs.categories import category_of, minor_category_of
from medaction.envs.diagnosis_names import DiagnosisName
from medaction.envs.documented import says_something
from medaction.envs.grounding import numbers_of, plain_text
from medaction.envs.leaks import (
    COMPLAINT,
    OTHER_CAUSE,
    RELATIVE,
    SENTENCE_END,
    complaint_of,
    is_history,
    mentions_in,
    names_of_case,
    outcomes_in,
)
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    TABLE,
    canonical_of,
    fluids_in,
    profile,
    regions_in_text,
    synonyms_of,
    tokens_of,
)
from medaction.envs.patients import PERSON, is_grown, tells_of_newborn
from medaction.envs.phenotype_tests import findings_of_tests, shown_by
from medaction.envs.records import CaseReport, CheckResult, DocumentedTest, StructuredCase
from medaction.envs.results_told import (
    ACTIVE_FINDING,
    FINDING,
    RESULT_LENGTH,
    STATUS,
    Statement,
    blood_findings,
    is_told,
    labelled_test,
    result_told,
    same_test,
    tells_whole,
)
from medaction.words.names import normalise
from medaction.words.phrases import IN_BRACKETS, phrase_pattern, phrase_regex
from medaction.words.sentences import LABEL, split_outside_brackets

MOST = 0.5
"""Share of the initial observation's characters that may be cut (results that move to the menu do
not count); of a case that leaks more nothing is cut, and it is refused."""

# Also the full-width signs of Chinese and Japanese.
_CLAUSE_END = re.compile(r"(?<=[,;，；])\s+")
# 'Rash suggestive of lupus': the hint goes, the rash stays. 'Was suggestive of' is a predicate.
_CLAUSE_OR_HINT = re.compile(
    r"(?<=[,;，；])\s+|(?<! was)(?<! were)(?<! is)(?<! are)(?<! and)\s+(?=(?:indicating"
    r"|suggest(?:ing|ive)|consistent with|compatible with|concerning for)\b)"
)
_INTRODUCTION = re.compile(
    r"(?:(?:in|on|at|by|after|during|then|later|\w+ly)\b(?: \w+){0,3}"
    r"|(?:\w+ ){1,3}(?:ago|before|earlier|later|prior|previously)),",
    re.IGNORECASE,
)
# After these labels stands a list of findings: each item is told for itself.
_LISTED_SECTIONS = phrase_pattern(
    "patient information | demographics | physical exam* | review of systems"
)
# What means nothing once the sentence before it is gone: 'Treated with chemotherapy.'
_NEEDS_THE_SENTENCE_BEFORE = phrase_regex(
    "subsequently | then | which | this | these | it | its | such | followed by | treated | managed"
    " | received | underwent | status post | s/p | controlled | diagnosed | confirmed | resected",
    "",
)
_HANGING = re.compile(
    rf"(?:{_NEEDS_THE_SENTENCE_BEFORE}|on \w*therapy"
    r"|(?:he|she|they|the patient) (?:was (?:treated|managed|given|started)|received|underwent)"
    r"|\w+ed (?:with|by|after|on|and)"
    r"|there (?:was|were|is) no evidence"
    r"|the (?:disease|tumou?r|cancer|lesion|condition|mass|infection)|\w*therapy|treatment)\b",
    re.IGNORECASE,
)
_BEHIND_A_SUBJECT = phrase_regex(
    "on | by | via | with | which | that | as | in | was | were | is | are | had been | has been",
    "",
)
_PREDICATE_ALONE = re.compile(
    rf"(?:\w+ly )?(?:{FINDING.pattern}"
    rf"|{_BEHIND_A_SUBJECT}\b)"
)
_LISTS_FINDINGS = re.compile(
    rf"{ACTIVE_FINDING.pattern}|\bfindings (?:of|were|are|included?)\b", re.IGNORECASE
)
_VERB_ALONE = re.compile(r"(?:was|were|is|are|had|has)\b")
# A note's own conclusion, whatever it says.
_CONCLUSION = re.compile(
    r"\W*(?:imp(?:ression)?|assessment|(?:(?:working|provisional|differential|clinical|final) )?"
    r"diagnos[ei]s|d?dx)\s*:",
    re.IGNORECASE,
)
_BY_TEST = re.compile(r"\b(?:on|by|via) [\w\s-]+\W*$")
# A clause that turns from a test back to the patient, or to what came after it.
_BACK_TO_THE_PATIENT = phrase_regex(
    "he | she | they | the patient | his | her | symptoms | followed | then | later | after"
    " | before | who",
    "",
)
_PATIENT = re.compile(rf"(?:and |but )?{_BACK_TO_THE_PATIENT}\b", re.IGNORECASE)
# Behind a relative, what is told of the patient: 'the sister says that he', 'in the family he'.
_OF_PATIENT = re.compile(
    r"(?:.*\bthat|\w*,?) (?:he|she|they|the patient)\b", re.IGNORECASE | re.DOTALL
)
_PATIENT_AS_SUBJECT = re.compile(r"\b(?:he|she|they|(?:the )?patient)\b", re.IGNORECASE)
_BEGINS_THE_DISEASE = phrase_regex(
    "with | who | whose | in whom | presented | diagnosed | presenting | came | comes | presents"
    " | found | seen | was | is | has | had",
    "",
)
_BEHIND_A_VERB = phrase_regex(
    "after | because | for | from | by | to | with | on | in | at | when | as | a | an | the | his"
    " | her",
    "",
)
# Who the patient is, and where what follows about the disease begins: 'a woman of 19 years | with'.
_DEMOGRAPHICS = re.compile(
    r"\b(?:\w+[- ]?(?:year|yr|month|week|day)s?[- ]old|aged \d+|\d+ years of age"
    r"|\d{1,2}(?-i:[MF]))\b"
    rf".*?(?=,| (?:{_BEGINS_THE_DISEASE}"
    # 'Retired' and 'married' are said of the patient: only a verb goes on like this.
    rf"|\w{{3,}}ed {_BEHIND_A_VERB})\b)",
    re.IGNORECASE,
)
_BEGINS_A_PREDICATE = phrase_regex(
    "who | whose | where | came | comes | presented | presents | presenting | was | is | has | had"
    " | with | and | for",
    "",
)
# 'With leukemia | , a fisherman from Oslo'; not ', a rare cancer', which ends like a person.
_APPOSITION = (
    rf", (?:an?|the) (?!(?:[\w-]+ ){{0,3}}{phrase_regex(TABLE['diseases'])}\b)"
    rf"(?:[\w-]+ ){{0,3}}?(?:{PERSON.pattern})"
)
_PREDICATE = re.compile(rf"(?=,? {_BEGINS_A_PREDICATE}\b|{_APPOSITION})", re.IGNORECASE)
# A clause whose verb is still to come.
_OPEN_CLAUSE = re.compile(r"\b(?:where|which|that)\b[^,;]*$")
# 'Renal cysts were detected': by a test that is not told, in what no examination reaches.
# Not 'she was discovered unconscious', nor 'her bowel habits were discovered to be irregular'.
_DISCOVERED = re.compile(
    r"(?<!\bhe )(?<!\bshe )(?<!\bpatient )\b(?:was|were|been) (?:\w+ly )?"
    r"(?:discovered|detected|identified|visuali[sz]ed)\b(?! to be\b)",
    re.IGNORECASE,
)
_INSIDE = frozenset(
    """
    adrenal aorta bowel colon esophagus gallbladder kidney mediastinum ovary pancreas pituitary
    stomach
    """.split()  # noqa: SIM905
)
_AND_ANOTHER = re.compile(r"(?=,? and (?:an?|the)\b)")
_OPERATIVE = ("Operative findings",)
# 'Her doctor found a CK of 6,200 U/L | and stopped the statin': what was done is history.
_DEEDS = (
    "started | began | stopped | gave | prescribed | referred | put | sent | added | changed"
    " | withdrew | treated | reassured | admitted | increased the | reduced the | increased his"
    " | increased her | reduced his | reduced her"
)
_FOUND_AND_DID = re.compile(
    r"(?P<who>[\w'’-]+(?: [\w'’-]+){0,3}?)"
    r" (?P<finding>(?:found|noted|saw|measured|detected|recorded) .+?),?"
    rf" and (?P<deed>{phrase_regex(_DEEDS, '')} .+)",
    re.IGNORECASE,
)
# What says more of the part of the sentence before it: 'with pneumonia | for two days'.
_ADJUNCT = re.compile(r" for\b")


@dataclass(frozen=True, slots=True)
class Redacted:
    """A case after cutting: what was cut, what the menu tells too, what became entries of it, and
    the share of the characters that was cut (0 to 1).

    With nothing cut and a share above 0 the case is as it was: too much would have had to go.
    """

    case: StructuredCase
    cut: tuple[str, ...] = ()
    told_again: tuple[str, ...] = ()
    moved: tuple[DocumentedTest, ...] = ()
    share: float = 0.0


@dataclass(slots=True)
class _Cutter:
    """Goes through the lines of one observation."""

    report: CaseReport
    case: StructuredCase
    cut: list[str] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    names: tuple[DiagnosisName, ...] = field(init=False)
    complaint: str = field(init=False)
    last_is_result: bool = False
    is_examination: bool = False
    is_present: bool = False
    is_grown: bool = False
    tells_demographics: bool = False

    def __post_init__(self) -> None:
        self.names = names_of_case(self.report, self.case)
        self.complaint = complaint_of(self.case.initial_observation)
        self.is_grown = is_grown(self.case.initial_observation)
        demographics = _DEMOGRAPHICS.search(self.case.initial_observation)
        self.tells_demographics = demographics is not None

    def leaks(self, text: str) -> bool:
        return bool(
            any(not mention.excuse for mention in mentions_in(text, self.names, self.case))
            or any(is_told(test, text, self.complaint) for test in self.case.tests)
            or outcomes_in(text)
            or self.of_newborn(text)
        )

    def of_newborn(self, text: str) -> bool:
        """Whether a mother's history tells of her newborn there."""
        return self.is_grown and tells_of_newborn(text)

    def line(self, line: str, is_first: bool) -> str:
        if not any(map(str.isalnum, line)):
            return line
        label = LABEL.match(line)[0]  # type: ignore[index]
        body = line[len(label) :]
        is_complaint = COMPLAINT.search(label) is not None
        # The label says whether words of a laboratory are out of place (`_result`), here and in the
        # bullets below.
        if not line[0].isspace():
            self.is_examination = "examination" in label.casefold()
            self.is_present = "present" in label.casefold()
        is_list = bool(_LISTED_SECTIONS.search(label)) or (
            label.casefold().lstrip(" -*•").startswith("past medical")
        )
        # A label alone may tell: '- Biopsy-proven sarcoidosis:'.
        if not body.strip() and self.leaks(line):
            self._take(line)
            return ""
        sentences: list[str] = []
        gone, left_as_it_was = False, True
        # Sentence by sentence, since what hangs on a cut sentence must go with it.
        for place, sentence in enumerate(split_outside_brackets(SENTENCE_END, body)):
            # Age, sex and the complaint are what an observation is for: they are never cut whole.
            # What a label sets before them ('Referral: ?GCA. 74F ...') is not.
            before = bool(label.strip()) and self._is_before_patient(sentence)
            opens = is_first and place == 0 and not before
            keeps = is_complaint or opens
            if not any(map(str.isalnum, sentence)):
                remainder = sentence
            elif not keeps and (
                (labelled_test(label + sentence) and not _PATIENT.match(sentence))
                or self._is_conclusion(label, sentence)
            ):
                self._take(label + sentence)
                remainder = ""
            elif (
                gone
                and _hangs(sentence)
                # A drug given after a result that moves is history.
                and not (self.last_is_result and _PATIENT_AS_SUBJECT.match(sentence))
            ) or (not left_as_it_was and self._of_operation(sentence)):
                self._take(sentence, continues=True)
                remainder = ""
            else:
                remainder = self._without_asides(label, sentence, is_complaint)
                if keeps:
                    remainder = self._without_tail(label, remainder)
                else:
                    remainder = self._sentence(label, remainder, is_list)
            gone = not remainder and bool(sentence.strip())
            left_as_it_was = left_as_it_was and remainder == sentence
            sentences += [remainder] if remainder else []
        # The very line where nothing went: its spaces and brackets stay the report's.
        if left_as_it_was:
            return line
        # Chinese and Japanese join sentences without a space.
        text = re.sub(r"(?<=[。！？；]) ", "", " ".join(sentences))
        # What stood behind the semicolon is gone.
        text = re.sub(r";$", ".", text) if gone else text
        return label + text if text else ""

    def _of_operation(self, sentence: str) -> bool:
        """Whether a part behind a semicolon goes on with what an operation has shown."""
        last = self.statements[-1:]
        return sentence[:1].islower() and self.last_is_result and last[0].tests == _OPERATIVE

    def _is_conclusion(self, label: str, sentence: str) -> bool:
        """Whether a note concludes here; the diagnoses of the past are history."""
        concludes = _CONCLUSION.match(sentence) or _CONCLUSION.match(label)
        return bool(concludes) and not is_history(label + sentence)

    def _is_before_patient(self, sentence: str) -> bool:
        """Whether another sentence tells age and sex, and this one neither."""
        return self.tells_demographics and not _DEMOGRAPHICS.search(sentence)

    def _without_asides(self, label: str, sentence: str, is_complaint: bool) -> str:
        """The sentence without brackets that leak, where the rest of it does not."""
        asides = [
            match[0]
            for match in IN_BRACKETS.finditer(sentence)
            # 'Fever (WBC 15,000)': the aside is a result, the sentence no test's.
            if self.leaks(match[0])
            or (self._result(match[0].strip(" ()")) and named_tests(match[0]))
        ]
        remainder = sentence
        for aside in asides:
            remainder = remainder.replace(aside, "", 1)
        # Where the sentence leaks without its asides too, cutting them would not help it.
        if not asides or (
            not is_complaint and (self.leaks(label + remainder) or self._result(remainder))
        ):
            return sentence
        for aside in asides:
            start = sentence.index(aside)
            before = sentence[:start].rstrip()
            test = next(iter(named_tests(before)[-1:]), "")
            # 'BAL (lymphocytes 62 %)' tells what is in that fluid.
            of_test = before.endswith(test) and profile(test).specimen not in (None, "blood")
            begin = len(before) - len(test)  # the very words, with the spaces between them
            end = start + len(aside)
            self._take(sentence[begin:end] if of_test else aside.strip(" ()"))
        return remainder

    def _without_tail(self, label: str, sentence: str) -> str:
        """A sentence that must stay, up to where it leaves the patient's age and sex."""
        demographics = _DEMOGRAPHICS.search(sentence)
        if demographics is None or COMPLAINT.search(label):
            return sentence
        # A part alone may lack what excuses it: 'from Ghana, where malaria | is common'.
        if not self.leaks(label + sentence) and not self._result(sentence):
            return sentence
        head = sentence[: demographics.end()]
        # What must stay leaks itself: the case is refused.
        if self.leaks(head):
            return sentence
        tail = sentence[demographics.end() :]
        # 'In whom a CT had shown ...' has a subject of its own before its verb.
        in_whom = tail.startswith(" in whom ")
        parts = _AND_ANOTHER.split(tail) if in_whom else _whole_clauses(_PREDICATE.split(tail))
        removed: list[str] = []
        stays = [head]
        for before, part in itertools.pairwise(["", *parts]):
            hangs = bool(removed) and removed[-1] == before
            hangs = hangs and bool(in_whom or _ADJUNCT.match(part))
            goes = hangs or self.leaks(part) or self._result(part)
            (removed if goes else stays).append(part)
        if not removed:
            return sentence
        self._take(_verbatim(removed, sentence).strip(" ,."))
        text = re.sub(r"(?:,| who)+$", "", "".join(stays))
        return text if text.endswith((".", "!", "?")) else text + "."

    def _sentence(self, label: str, sentence: str, is_list: bool) -> str:
        """What may stay of a sentence; the rest is taken."""
        if not self.leaks(label + sentence) and not self._result(sentence):
            return sentence
        # First what lies behind the demographics: a sentence that says who it is may be kept in
        # part.
        if (remainder := self._without_tail(label, sentence)) != sentence:
            return remainder
        acts = _FOUND_AND_DID.fullmatch(sentence)
        if acts and self._result(acts["finding"]) and not self._result(acts["deed"]):
            remainder = f"{acts['who']} {acts['deed']}"
            if not self.leaks(label + remainder):
                self._take(acts["finding"])
                return remainder
        clauses: list[str] = []
        removed: list[str] = []
        stays: list[str] = []
        for pattern in (_CLAUSE_OR_HINT, _CLAUSE_END):  # 'biopsy | suggesting' may tell it together
            if not removed:
                clauses = self._clauses(pattern, label, sentence)
                removed, stays = self._parted(clauses, label, is_list)
        # A clause could not be cut alone: the sentence goes, unless it is a list with a mere
        # finding.
        if not removed:
            if is_list and not self.leaks(label + sentence):
                return sentence
            removed = clauses
            stays = []
        # 'Mass in the colon | identified via colonoscopy': the result is the sentence.
        # Of a list that ends 'no shunt on echocardiography' the items before may be its own.
        ends_list = not is_list or removed[0].startswith("and ")
        hangs = _PREDICATE_ALONE.match(removed[0]) or (ends_list and _BY_TEST.search(removed[0]))
        fragment = bool(stays) and hangs and stays[0] == clauses[0]
        # 'Flutter on ECG, effusion on a chest X-ray': each item of a list is a test's own.
        is_each = is_list and not fragment and all(map(self._result, removed))
        for text in removed if is_each else [_verbatim(removed, sentence)]:
            self._take(text, context=sentence if fragment else "")
        # 'Sodium, taken the week before, | was 121': without its verb the rest is no sentence.
        # 'He had fever for a week, | was seen on CT to have nodules' has a verb of its own.
        is_subject = named_tests(clauses[0]) or canonical_of(clauses[0])
        if fragment and is_subject and _VERB_ALONE.match(removed[0]):
            return ""
        text = re.sub(r"^(?:and|but) ", "", " ".join(stays)).rstrip(" ,;")
        if not text:
            return ""
        if removed[-1] == clauses[-1] and not text.endswith((".", "!", "?", "。")):
            text += "."
        return text if stays[0] == clauses[0] else text[0].upper() + text[1:]

    def _clauses(self, pattern: re.Pattern[str], label: str, sentence: str) -> list[str]:
        """The clauses of a sentence; 'In 2005,' is none by itself."""
        # 'In 2005, | he ...' would leave a date without a sentence.
        opening, *clauses = split_outside_brackets(pattern, sentence)
        if clauses and _INTRODUCTION.fullmatch(opening):
            opening = f"{opening} {clauses.pop(0)}"
        return [part for clause in (opening, *clauses) for part in self._halves(label, clause)]

    def _parted(self, clauses: list[str], label: str, is_list: bool) -> tuple[list[str], list[str]]:
        """The clauses that must go, and those that may stay. A result goes with what goes on about
        it, a leak in the first clause with the whole sentence, whose subject would be gone."""
        removed: list[str] = []
        stays: list[str] = []
        in_result = goes_on = False
        for number, clause in enumerate(clauses):
            result = self._result(clause) is not None
            if (
                result
            ):  # 'bronchoscopy showed edema, | bleeding': a list of findings goes on as well
                is_word = result_told(clause) is None  # 'leukopenia, | arthralgia'
                goes_on = not (is_list or is_word) or _LISTS_FINDINGS.search(clause) is not None
            in_result = result or (in_result and goes_on and not _PATIENT.match(clause))
            hangs = bool(removed) and _hangs(clause)
            if in_result or hangs or self.leaks(label + clause):
                # The subject stands in the first clause: what is left would have none.
                if number == 0 and not is_list and not result:
                    return clauses, []
                removed.append(clause)
            else:
                stays.append(clause)
        return removed, stays

    def _halves(self, label: str, clause: str) -> list[str]:
        """'HIV was known | with a CD4 count of 96', 'stiff neck | during her meningitis': what a
        clause tells before what must go. A finding of the examination may stand on either side."""
        for word in (" without ", " with ", " during ", " due to "):
            before, _, after = clause.rpartition(word)
            result = self._result(after)
            # What an operation has shown is one finding, and so is 'atrial flutter with a rapid
            # rate on ECG': no bedside shows the first. A firm liver stays.
            by_test = _BY_TEST.search(after)
            shown = by_test and by_test[0].startswith("on ") and shown_by("", before.strip())
            if self.is_examination and result and (result.tests == _OPERATIVE or shown):
                break
            goes = result or (word != " with " and self.leaks(label + after))
            # What is left must be a phrase by itself: 'he was', 'presented' would hang.
            stands = not re.search(
                r"(?:^|ed|is|was|are|were|ent|ible|man|boy|girl|along|together)$", before
            )
            if goes and stands and not self._result(before) and not self.leaks(label + before):
                return [before + "," * after.endswith(","), word.strip() + " " + after]
        for word in (" or ", " and "):  # 'no trauma | or other cause of chylothorax'
            before, _, after = clause.rpartition(word)
            is_other = before and OTHER_CAUSE.search(after) and self.leaks(label + after)
            if is_other and not self.leaks(label + before):
                return [before, word.strip() + " " + after]
        before, joint, after = clause.rpartition(" and ")
        if self.is_examination and joint:
            results = self._result(before) is not None, self._result(after) is not None
            is_measured = re.match(STATUS, after, re.IGNORECASE)
            if results == (True, False) or (results == (False, True) and is_measured):
                return [before, "and " + after]
        elif joint:
            # 'Cysts were detected | and she took tolvaptan' has two subjects.
            two = _PATIENT_AS_SUBJECT.match(after) and self._result(before)
            # 'Developed fevers | and pulmonary infiltrates'
            is_shown = findings_of_tests(after) and self._result(after) and not self._result(before)
            if two or is_shown:
                return [before, "and " + after]
        return [clause]

    def _result(self, text: str) -> Statement | None:
        """A result of this patient: one of a relative is family history, but for what a relative
        or a family's screening tells of the patient. No examination finds what only a laboratory
        tells."""
        relative = RELATIVE.search(text)
        if (relative and not _is_of_patient(text, relative)) or self.of_newborn(text):
            return None
        # 'Leukopenia' under 'Physical examination' is a laboratory's word.
        findings = blood_findings(text) if self.is_examination or self.is_present else {}
        if self.is_present and not is_history(text):
            findings |= findings_of_tests(text)
        complaint = self.complaint.casefold()
        findings = {word: test for word, test in findings.items() if word not in complaint}
        statement = result_told(text)
        if findings:
            named = statement.tests if statement else ()
            known = {canonical_of(name) for name in named}
            others = (test for test in findings.values() if test not in known)
            return Statement(text, tuple(dict.fromkeys((*named, *others))))
        if statement is None and self.is_present and _DISCOVERED.search(text):
            inside = _organs_inside(text) - _organs_inside(self.complaint)
            statement = Statement(text, ("Investigations",)) if inside else None
        return statement

    def _take(self, text: str, context: str = "", continues: bool = False) -> None:
        """Note what is taken out: a result for the menu, with its `context` where it is no
        statement alone; else a cut."""
        text = re.sub(r"^(?:and|but) ", "", text.strip(" ,;").lstrip("-*• "))
        statement = self._result(text)
        if statement and says_something(text):
            # The name of the test may stand in what is no statement alone.
            if context and not any(map(canonical_of, statement.tests)):
                statement = self._result(context) or statement
            self.statements.append(Statement(context.strip(" ,;") or text, statement.tests))
            self.last_is_result = True
        # 'It was treated with ...' behind a result goes to the menu with it.
        elif continues and self.last_is_result:
            before = self.statements.pop()
            self.statements.append(Statement(f"{before.text}\n{text}", before.tests))
        else:
            self.cut.append(text)
            self.last_is_result = False


def _whole_clauses(parts: Sequence[str]) -> list[str]:
    """The parts of a sentence, where those of one clause, 'where his sodium | was 121', are one."""
    clauses: list[str] = []
    for part in parts:
        is_open = clauses and not part.startswith(",") and _OPEN_CLAUSE.search(clauses[-1])
        clauses[-1:] = [clauses[-1] + part] if is_open else [*clauses[-1:], part]
    return clauses


def _organs_inside(text: str) -> frozenset[str]:
    return regions_in_text(tokens_of(normalise(text))) & _INSIDE


def _is_of_patient(text: str, relative: re.Match[str]) -> bool:
    """Whether a sentence with a relative tells something of the patient: behind the relative, or
    before, where the relative has the same ('he carries the mutation of his aunt'), or by saying
    so ('a sister has the same mutation')."""
    before = text[: relative.start()]
    return bool(
        _OF_PATIENT.match(text, relative.end())
        or (_PATIENT_AS_SUBJECT.search(before) and result_told(before))
        or ("the same" in text and result_told(text))
    )


def _verbatim(parts: Sequence[str], sentence: str) -> str:
    """Parts of a sentence, a line for each stretch of it: a result is the report's own words, so
    that nothing may be joined that stands apart there."""
    lines: list[str] = []
    # Joined only where the report has them side by side: else it would be no quotation.
    for part in map(str.strip, parts):
        joined = next(
            (text for gap in (" ", "") if lines and (text := lines[-1] + gap + part) in sentence),
            "",
        )
        lines[-1:] = [joined] if joined else [*lines[-1:], part]
    return "\n".join(lines)


def _hangs(text: str) -> bool:
    """Whether a sentence is nothing without the one before it; so is, after a semicolon, what a
    relative has of it."""
    # '; her sister has it too' in small letters goes on with the sentence before.
    return bool(_HANGING.match(text) or (text[:1].islower() and RELATIVE.search(text)))


def redact(report: CaseReport, case: StructuredCase) -> Redacted:
    """Take out what names the diagnosis, tells a test's result, or tells the outcome.

    A sentence ends with '.', ';', '!' or '?' or with its line. Of a sentence only the clauses that
    leak go where its beginning can stand without them. The chief complaint, age and sex, and the
    very first sentence are never cut: a case that leaks there keeps its leak, and is refused.
    """
    cutter = _Cutter(report, case)
    observation = case.initial_observation
    lines = observation.splitlines()
    remainder = [cutter.line(line, number == 0) for number, line in enumerate(lines)]
    text = "\n".join(
        new for new, old in zip(remainder, lines, strict=True) if new or not old.strip()
    )
    if text == observation:
        return Redacted(case)
    share = sum(map(len, cutter.cut)) / len(observation)
    if share > MOST:
        return Redacted(case, share=share)
    tests = tuple(_with_further_values(test, cutter.statements) for test in case.tests)
    moved = _moved(case.tests, tests, cutter.statements, cutter.complaint)
    told_again = tuple(
        # Noted as cut because the menu tells it already.
        statement.text
        for statement in cutter.statements
        if not any(
            statement.text in test.result for test in (*tests, *moved) if test not in case.tests
        )
    )
    redacted = replace(case, initial_observation=text, tests=(*tests, *moved))
    return Redacted(redacted, tuple(cutter.cut), told_again, moved, share)


def _moved(
    before: tuple[DocumentedTest, ...],
    tests: tuple[DocumentedTest, ...],
    statements: list[Statement],
    complaint: str,
) -> tuple[DocumentedTest, ...]:
    """The results that the observation told as entries of the menu; what an entry told `before`, or
    has as a further value of the very analyte, is not added to it."""
    # 'CSF glucose' is no glucose.
    own_names = {(canonical_of(t.name), _other_fluids(t.name)): t.name for t in reversed(tests)}
    return tuple(
        DocumentedTest(
            # 'Serum CA-125' of a statement is one test with the entry 'CA-125'.
            (canonical_of(name) and own_names.get((canonical_of(name), _other_fluids(name))))
            or _with_place_of_result(name[0].upper() + name[1:], statement.text, tests),
            category_of(name),
            statement.text,
            minor=minor_category_of(name, category_of(name)),
        )
        for statement in statements
        for name in statement.tests
        if not any(_covers(test, name, statement, complaint) for test in before)
        # Of an analyte the entry tells it again, or has the further value.
        and not any(category_of(name) == "laboratory" and _value_in_entry(name, t) for t in tests)
    )


def _with_place_of_result(name: str, text: str, tests: Sequence[DocumentedTest]) -> str:
    """'Brain MRI' of 'no brain lesion by MRI', where the menu's 'MRI' is of another place."""
    words = re.findall(r"[^\W\d_]+", text)
    regions = {word: regions_in_text(tokens_of(normalise(word))) for word in words}
    places = [word for word, region in regions.items() if region]
    same = [test for test in tests if normalise(test.name) == normalise(name)]
    others = regions_in_text(tokens_of(normalise(" ".join(test.result for test in same))))
    if not (same and others) or len(set(map(regions.get, places))) != 1:
        return name
    if category_of(name) != "imaging" or profile(name).regions or regions[places[0]] & others:
        return name
    return f"{places[0].capitalize()} {name}"


def _with_further_values(test: DocumentedTest, statements: list[Statement]) -> DocumentedTest:
    """A laboratory's entry with the statements that tell another value of an analyte in it, such as
    that of the referring clinic: under a name of its own such a value would hide the entry's."""
    further = [
        statement.text
        for statement in statements
        for name in statement.tests
        if test.category == "laboratory" and _value_in_entry(name, test)
        if (value := value_of(name, statement.text)) and value not in numbers_of(test.result)
    ]
    return replace(test, result="\n".join(dict.fromkeys((test.result, *further))))


def _value_in_entry(name: str, test: DocumentedTest) -> str:
    """As `value_of`, of an entry: 'glucose 20' of a 'CSF' is no glucose of the blood, nor 'hCG 900'
    of an entry that tells no specimen a pregnancy test of the urine."""
    specimen = profile(test.name).specimen
    if specimen not in (None, profile(name).specimen):
        return ""
    fluids = _other_fluids(name) - {specimen}
    return (
        value_of(name, test.result) if fluids <= _other_fluids(f"{test.name} {test.result}") else ""
    )


def _other_fluids(text: str) -> frozenset[str]:
    """The specimens that a text names beside blood. By its words: a table may hold 'urine pregnancy
    test' as another name of hCG."""
    return fluids_in(text) - {"blood"}


def value_of(name: str, text: str) -> str:
    """The number behind the name of an analyte; '' for none, or for one of another specimen."""
    if category_of(name) != "laboratory":
        return ""
    specimen = profile(name).specimen
    # 'Hb 9.1' of a blood count is a hemoglobin; the 'mg' of '3 mg' is no magnesium.
    synonyms = sorted({name, *synonyms_of(name)})
    names = "|".join(re.escape(n).replace("\\ ", "[ -]") for n in synonyms if len(n) > 1)
    # 'Gastrin rose by 380' tells a change.
    value = rf"(?<![\d/])(?<!\d )\b(?:{names})\b[^.;\d]{{0,60}}(?<![a-z-])(?<!\bby )(?=\d)"
    for match in re.finditer(value, text, re.I):
        before = text[: match.start()].rpartition(" ")[0].rpartition(" ")[2]
        if specimen == profile(f"{before} {name}").specimen:
            return next(iter(numbers_of(text[match.end() :])), "")
    return ""


def _covers(test: DocumentedTest, name: str, statement: Statement, complaint: str) -> bool:
    """Whether an entry tells already what a statement says of the test called `name`: the analyte
    stands in its result, its result is told again, or it has or quotes the very words."""
    # Behind the label: 'CT: mass' of a statement is 'mass' in the entry.
    finding = plain_text(statement.text.partition(":")[2] or statement.text).strip(" .;")
    if len(finding) >= RESULT_LENGTH and finding in plain_text(test.result):
        return True
    # A second culture or serology may have found something else.
    if (
        category_of(name) == "laboratory"
        and not profile(name).kinds
        and re.search(rf"\b{re.escape(name)}\b(?![^.;,]*\d)", test.result, re.IGNORECASE)
    ):
        return True
    # 'D-dimer' of a statement is 'D-dimer test', an entry's longer name.
    in_name = re.search(rf"\b{re.escape(name)}\b", test.name, re.IGNORECASE)
    is_same = same_test(name, test.name)
    if test.quote and (in_name or is_same) and plain_text(statement.text) in plain_text(test.quote):
        return True
    return is_same and tells_whole(test, statement.text, complaint)


def share_cut(redacted: Redacted) -> CheckResult:
    """How much had to go. Not required: what exceeds MOST is not cut at all, and is refused for its
    leak.

    Figure: the share of the characters, 0 to 1.
    """
    detail = f"{redacted.share:.0%} of the initial observation would have to be cut"
    return CheckResult(
        "redaction", redacted.share <= MOST, round(redacted.share, 3), MOST, detail, required=False
    )
