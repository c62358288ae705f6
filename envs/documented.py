"""Whether a text tells a result at all, or only that there is none: 'Pending', 'Not performed',
'MRI pelvis.'

Decided sentence by sentence and by its form, never by a word anywhere: 'None of four bottles grew'
and 'Na 121 mmol/L' are results. What a test's result says in no such form ('the tube broke', 'no
growth') is weighed word piece by word piece, with the weights that `benchmarks/no_result.py` makes
from a file of statements.
"""

import calendar
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medaction.envs.mentions import named_tests, without_names_of_tests
from medaction.envs.naming import is_code, profile
from medaction.envs.patients import PERSON
from medaction.envs.phenotype_tests import participles_of_findings
from medaction.kg.encoder import TOKENIZER
from medaction.words.negation import PERCEPTIONS
from medaction.words.phrases import IN_BRACKETS, phrase_pattern, phrase_regex

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS = Path(__file__).parent / "data" / "no_result.json"
NO_RESULT_AT = 0.75
"""The score (a logit) above which a clause tells no result. By 5-fold cross-validation on 760
made-up statements, forms and weights see 234 of 309 without result at 0.7 and 231 at 0.8, and lose
32 of 451 at both; between them by a result with markup, which must stay one. Of 35 results of one
word ('Warm'), written afterwards and not looked at, 2 were lost."""

DONE = (
    r"(?:performed|done|conducted|obtained|carried out|undertaken|sent|requested|ordered|tested"
    r"|planned|scheduled|cancell?ed|declined|refused|deferred|postponed|omitted|assessed|measured"
    r"|analy[sz]ed|processed|interpreted|completed|determined|collected"
    r"|recommended|advised|offered|repeated|booked|arranged|asked|quantified|calculated|estimated)"
)
_WRITTEN = (
    r"(?:provided|detailed|described|specified|documented|stated|mentioned|available|reported|given"
    r"|recorded)"
)
# States of a test under way, as a predicate: 'CMV PCR outstanding', 'HLA typing in process'.
# A closed class: what a laboratory's own system calls a test without a result.
_UNDER_WAY = (
    r"(?:pending|awaited|outstanding|incubating|under way|to follow"
    r"|in (?:process|progress|the laboratory))"
)
_BEHIND_NO_RESULT = phrase_regex(
    "at | in | by | for | beyond | regarding | here | yet | next | as | so | due to | because"
    " | until | scheduled",
    "",
)
_NO_DATA = phrase_regex("data | detail | information | result")
# The whole sentence is one of these words. 'None after 5 days' is a result, 'pending after 5 days'
# is none.
# `fullmatch`: behind the word only 'at ...', 'due to ...' and the like may follow.
_EMPTY = re.compile(
    r"(?:results? |still |currently |is |are |was |were )*"
    rf"(?:(?:{_UNDER_WAY}|to be (?:determined|{DONE}))"
    r" (?:on|after|before|when|once)\b[^;:,]*|"
    rf"(?:{_UNDER_WAY}|unknown|unavailable|n/a|na(?=\W*$)|none|optional"
    rf"|see [\w ]{{4,20}}|to be (?:determined|{DONE})"
    rf"|{DONE}(?:(?:,| and|,? but) {DONE})?"
    r"|not (?:yet )?(?:applicable|required|indicated|necessary|needed"
    rf"|{DONE}|{_WRITTEN})(?: after\b[^;]*)?|no {_NO_DATA}(?: {_WRITTEN})?)"
    rf"(?:,? {_BEHIND_NO_RESULT}\b[^;]*)?)",
    re.IGNORECASE,
)
# The same in other languages, which the weights do not know: a denial with a verb of doing, or a
# state under way. 'Nicht vergrößert', '未检出', 'не обнаружено' are results.
_EMPTY_ELSEWHERE = re.compile(
    r"(?:検査|检查|结果|結果|результат\w* )?"
    + phrase_regex(
        """
        nicht durchgeführt | nicht erfolgt | nicht bestimmt | nicht gemacht | nicht untersucht
        nicht verfügbar | noch nicht da | ausstehend | steht aus | steht noch aus | abgelehnt
        non effectué* | non réalisé* | non fait* | non pratiqué* | non dosé* | non disponible*
        pas fait* | pas réalisé* | pas effectué* | en attente | en cours | refusé*
        no realizad* | no se realizó | no se hizo | no efectuad* | no practicad* | no solicitad*
        no disponible* | pendiente* | en curso | en proceso | rechazad*
        non eseguit* | non effettuat* | non fatt* | non disponibil* | in attesa | in corso
        não realizad* | não feit* | não efetuad* | não solicitad* | não disponív* | em andamento
        aguardando | niet uitgevoerd | niet verricht | niet bepaald | volgt nog
        не проводил* | не проведен* | не выполнял* | не выполнен* | не сделан* | не назначал*
        не определял* | не исследовал* | не готов* | в работе | ожидается | отказ* пациент*
        nie wykonano | nie oznaczono | w toku | yapılmadı | bekleniyor
        未做 | 未行 | 未查 | 未检查 | 未检测 | 未进行 | 未完成 | 未送检 | 未能完成 | 待回报 | 待查
        结果待回报 | 结果未回 | 未回报 | 拒绝检查 | 患者拒绝 | 无法进行 | 無法進行 | 未進行 | 未檢查
        未施行 | 未実施 | 施行せず | 実施せず | 結果待ち | 検査中
        미시행 | 시행하지 않음 | 결과 대기
        """,
        "",
    )
    # 'Не проводилась из-за ...': a reason, a time or a mark behind it, and no number. 'Не
    # определялся кровоток' is a result.
    + r"(?:(?=[^\w\s])|\s*$|\s+"
    + phrase_regex(
        """
        из-за | ввиду | по | в связи | вследствие | при | до | так как | wegen | aufgrund | bei
        mangels | da | bis | weil | vor | faute | à cause | en raison | pour | car | lors | avant
        por | debido | a causa | porque | durante | antes | per | a causa | prima | devido | vanwege
        wegens | omdat | z powodu | nedeniyle
        """,
        "",
    )
    + r"\b)[^\d:]{0,60}",
    re.IGNORECASE,
)
_AUXILIARY = phrase_regex("do | does | did | can | could", "")
_TELL = phrase_regex("provide | mention | state | specify | report | describe | detail", "")
# That a test was not made, or its result not written down.
_ABSENT = re.compile(
    rf"\b(?:not (?:\w+ly |yet |be |been |further |otherwise )*(?:{DONE}|{_WRITTEN})"
    rf"|{_AUXILIARY}(?: not|n't) (?:\w+ly )?{_TELL}"
    rf"|(?:is|are|was|were|remains?) (?:still )?(?:{_UNDER_WAY}|unavailable)"
    r"|\w+ unavailable(?= due to| because|$)"
    rf"|^no(?: [\w-]+){{0,6}} (?:is|are|was|were|(?:could|can) be)"
    rf" (?:\w+ )?(?:{DONE}|{_WRITTEN}))\b",
    re.IGNORECASE,
)
# 'Ejection fraction: estimated at 35 %'.
_ESTIMATE = phrase_pattern(
    " | ".join(
        f"{verb} {joint} #"
        for verb in ("measured", "quantified", "calculated", "estimated")
        for joint in ("at", "as", "to be")
    )
)
_REASON = phrase_pattern(
    "due to | because | owing to | in view of | on account of | for want of | for lack of"
)
# 'No biopsy due to ...' is no result, 'no flow due to torsion' is one: a test's name decides.
_NOT_MADE = re.compile(rf"no (?P<what>[^.;]{{2,60}}?) {_REASON.pattern}", re.IGNORECASE)
# An advice to make the test.
_ADVICE = re.compile(
    rf"\b{phrase_regex('could | can | may | should', '')} be"
    rf" {phrase_regex('considered | performed | done', '')}\b",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    rf"(?:it )?(?:is|was) (?:not {_WRITTEN}|not known|unknown|unclear) (?:whether|if)\b",
    re.IGNORECASE,
)
_NO_VERB = r"(?!\b(?:was|were|which|when)\b)"
# That it was made, and no more: not 'CT was abnormal and a biopsy was advised'.
_MADE = re.compile(
    rf"(?:(?:{_NO_VERB}[\w\s,/()-]){{0,90}}? (?:was|were|has been|have been)|[\w/-]+)"
    rf" (?:also |then |\w+ly )?(?:{DONE}|taken)(?: (?:out|off))?"
    r"(?: (?:to|for|in|at|on|by|but) [\w\s]{3,40})?",
    re.IGNORECASE,
)
# Notes leave the verb out: 'MRI brain done on day 3'.
_MADE_IN_SHORT = re.compile(
    rf"(?P<what>(?:{_NO_VERB}[^.;:\d]){{2,60}}?) {DONE}"
    r"(?: (?:in|at|on|for|during|after|before) [\w\s]{3,40})?",
    re.I,
)
# 'Desmoglein 3 ELISA awaited at discharge', but no 'protein 2 g/L and culture pending'. The other
# states may be a finding's too ('healing in progress', 'fails to follow'): of a test behind a mark.
_AWAITED = re.compile(
    r"(?!.*(?: and |\d\S{0,20}\s{0,3}(?:%|\w{1,20}/)))"
    r"(?:sent(?: off| away)?(?: to [\w\s]{2,40})?, )?"
    r"[\w /-]{2,60},? (?:still )?"
    rf"(?:pending|awaited|outstanding|in process|to be {DONE}|(?<=[-,] ){_UNDER_WAY})"
    r"(?: (?:at|on|by|in|from|after) [\w\s]{3,40})?",
    re.IGNORECASE,
)
_FINDING = phrase_pattern(
    "show* | reveal* | demonstrat* | confirm* | disclos* | identif* | suggested* | exclud*"
    " | ruled out* | discover* | found* | grew* | negative* | positive* | elevated*"
)
MONTHS = " | ".join((*calendar.month_name[1:], *calendar.month_abbr[1:]))
"""A table of phrases."""
# What a clause does not assert: up to the next clause, or to what tells a finding.
_ASSERTION_END = r"(?=[^\w%]*$|[,;:]| (?:and|but|which|that|who)\b)"
_CONDITIONS = phrase_regex(
    "if | unless | whether | lest | in case | in the event | provided that | providing that"
    " | assuming",
    "",
)
# 'Had the scan shown a mass, ...', 'once the scan shows a mass': neither has happened.
# A note's 'Had a CT that showed a mass' and 'when upright the pressure is 80' have.
_TELLS_NOW = "comes?|returns?|shows?|reveals?|demonstrates?|confirms?|suggests?"
_UNREAL = (
    r"(?i:(?:^|(?<=[,;] ))(?:(?:should|were) (?:an?|the|his|her|their|any)\b"
    r"|had (?:an?|the|his|her|their|any)(?: (?!that\b|which\b|and\b)[\w-]+){1,5}?"
    r" (?:been|shown|come|grown|revealed|demonstrated)\b)"
    r"|(?:once|until|as soon as|when(?:ever)?)\b(?![^,;.]{0,100}\b(?:was|were|had|\w+ed)\b)"
    rf"(?=[^,;.]{{0,100}}\b(?:{_TELLS_NOW})\b)"
    r"|(?:once|until|as soon as)\b(?![^,;.]{0,100}\b(?:was|were|had|\w+ed)\b)"
    r"(?=[^,;.]{0,100}\b(?:is|are|has|have)\b))"
)
_MODALS = phrase_regex(
    "will | would | should | might | may | must | shall | ought to | need to", ""
)
_MODALS_AT_BEGIN = phrase_regex(
    "can | could | might | may | would | should | will | must | expected to | is expected to", ""
)
_BEHIND_AN_AIM = phrase_regex(
    "for | of | is | was | at | a | an | the | his | her | their | value | range | level", ""
)
_NOT_ASSERTED = re.compile(
    # `(?<!\s)`: else a long row of spaces is tried from each of them.
    rf"(?<!\s)\s*+\b(?:(?P<condition>(?i:{_CONDITIONS})\b|{_UNREAL})[^,;.]*"
    # 'Would not compress' tells what was seen; 'May' is a month.
    rf"|(?:(?:{_MODALS}|needs to|(?:is|was|were) to(?! be))\b(?! not\b|n't)"
    rf"|(?i:^{_MODALS_AT_BEGIN} (?!not\b)(?-i:[a-z]))"
    rf"|(?:can|could) (?:be {DONE}|help)\b|to be {DONE}\b).*?{_ASSERTION_END}"
    # 'A target lesion', 'above target with 9 %' are no aims.
    rf"|(?:target|goal|aim)(?:s|ed|ing)? (?:{_BEHIND_AN_AIM}\b|(?=[A-Z]))[^,;:]*)"
)
_NO_PROCESS = rf"(?!{_FINDING.pattern}|{phrase_regex(PERCEPTIONS, '')}|{_WRITTEN})"
_PASSIVE_VERB = re.compile(
    r"(?<!\s)\s*+\b(?:is|are|was|were|(?:has|have|had) been)"
    r"(?: (?!not\b)(?:\w+ly|also|then|yet|still))*"
    rf" (?P<verb>{_NO_PROCESS}[a-z]+(?:ed|wn|ken)|done|sent|made|told|put|lost"
    # By a person it is an advice: 'TB was suggested by the CT'.
    rf"|suggested(?= by (?:\w+ ){{0,3}}(?:{PERSON.pattern})))\b(?! (?:as|to be|to have)\b)"
    # Up to what tells a finding or a value.
    rf"(?: (?:out|off|up|down|in)\b)?(?:(?: (?!{_FINDING.pattern}|for\b)[^\s,;:()\d]+"
    rf"| (?:\d{{4}}|\d{{1,2}} (?:days?|weeks?|months?|{phrase_regex(MONTHS, '')}))\b)*?"
    rf"(?:{_ASSERTION_END}|(?=[()]))|(?= ))"
)
_WITHIN = re.compile(r"within\b", re.IGNORECASE)  # 'within limits', 'within reference'
# A duration or a date is no value: 'pending after 5 days'; nor is the number of a name: 'SOD1'.
_VALUE_IN_TEXT = re.compile(
    rf"(?<![A-Za-z\d])\d(?!\s*(?:days?|weeks?|months?|hours?)\b|\d?\s*{phrase_regex(MONTHS, '')}\b)"
)
_SENTENCE_END = re.compile(r"(?<=[.;])\s+")
# 'Allergies: None provided' goes whole; the label alone would be left.
_LABEL_OF_STATEMENT = re.compile(r"\s*(?:[-*•]\s*)?(?:[A-Z][\w /&()'-]{2,45}:\s*)?")


def is_documented(result: str) -> bool:
    """Whether the result of a test tells one: `says_something`, and no clause of it is weighed as
    'there is none'.

    >>> [is_documented(text) for text in ("No flow due to torsion.", "Low (value not provided)")]
    [True, True]
    >>> [is_documented(text) for text in ("Not conducted.", "MRI pelvis.", "The tube was broken")]
    [False, False, False]
    """
    return any(not _is_void(text) and not _weighs_as_none(text) for text in _statements(result))


def asserted(clause: str) -> str:
    """The clause without what asserts nothing of a test: conditions, hypotheses, aims, and that
    something was done, planned or refused.

    >>> asserted("She is to have surgery if the scan shows a cyst")
    'She'
    >>> asserted("An echo was attempted, but the ECG was clear and HbA1c should be 7")
    'An echo, but the ECG was clear and HbA1c'
    """
    clause = _NOT_ASSERTED.sub("", clause)
    return _PASSIVE_VERB.sub(lambda match: "" if _is_process(match) else match[0], clause).strip()


def _is_process(passive: re.Match[str]) -> bool:
    """Whether a participle tells what was done with a test, not what it found: 'attempted', not
    'delayed', which the ontology of phenotypes knows."""
    verb = passive["verb"]
    is_known = re.fullmatch(DONE, verb) or verb not in participles_of_findings()
    # 'Was diagnosed via MRI', 'was sent to CT, which showed ...'
    return bool(is_known and not named_tests(passive[0]))


def says_something(text: str) -> bool:
    """Whether a text of any kind, a history say, has a sentence that is not just 'Not performed',
    'N/A' or a test's name. The weights are of results alone: 'refuses food' is a finding."""
    return any(not _is_void(sentence) for sentence in _statements(text))


def _statements(text: str) -> list[str]:
    sentences = [sentence for line in text.splitlines() for sentence in _SENTENCE_END.split(line)]
    return [stripped for sentence in sentences if (stripped := sentence.strip(" .;-*•"))]


def without_void(text: str) -> str:
    """`text` without what says only that the source tells nothing: such lines, and such sentences
    at the end of a line. 'Allergies: None.' stays, it denies something."""
    lines = []
    for line in text.splitlines():
        label = _LABEL_OF_STATEMENT.match(line)[0]  # type: ignore[index]
        sentences = _SENTENCE_END.split(line[len(label) :])
        while (
            sentences
            and (last := sentences[-1].strip(" .;()[]*").removeprefix("Note: "))
            and _says_nothing_written(last)
        ):
            sentences.pop()
        if sentences or not line.strip():
            lines.append(label + " ".join(sentences))
    return "\n".join(lines)


def _says_nothing_written(sentence: str) -> bool:
    """'None provided', 'Not detailed in the case', 'No further details were given'. 'None reported'
    and 'no mass noted' deny something."""
    begins = r"(?:none|nothing|not (?:\w+ly )?(?={w})|(?:no )?(?:\w+ )?(?:details?|information))\b"
    return bool(
        re.match(begins.replace("{w}", _WRITTEN), sentence, re.IGNORECASE)
        # 'None reported' denies what was asked about.
        and re.search(rf"\b{_WRITTEN}\b(?<!reported)", sentence, re.IGNORECASE)
        # Behind a colon stands what is not told: 'Not mentioned in the source: allergies'.
        and not re.search(r"[,;]|^(?![Nn]ot\b).*:|\bhistory\b|\bbut\b", sentence)
    )


def _is_void(sentence: str) -> bool:
    text = IN_BRACKETS.sub("", sentence).strip(" .;-*•")
    # 'MRI: not performed' is judged without its label.
    bare = re.sub(r"^[\w\s/-]{2,40}:\s*", "", text)
    # 'Hearing is less on both sides, details not specified' tells something before it stops.
    clause, _, following = bare.partition(", ")
    # 'None (0 of 200 cells)' is a count.
    is_count = bare.casefold() == "none" and _VALUE_IN_TEXT.search(sentence)
    is_empty = _EMPTY.fullmatch(bare) and not (is_count or _VALUE_IN_TEXT.search(following))
    if not any(map(str.isalnum, bare)) or is_empty or _EMPTY_ELSEWHERE.fullmatch(bare):
        return not _ESTIMATE.search(bare)
    # 'May show ...': what a test would find is no result.
    assertion, opening = asserted(bare).strip(" ."), _NOT_ASSERTED.match(bare)
    is_hypothesis = not any(map(str.isalnum, assertion)) or (opening and not opening["condition"])
    if is_hypothesis or _UNKNOWN.match(bare) or (assertion != bare and _is_subject(assertion)):
        return True
    # From here on forms are weaker: a finding or a value behind them counts for more.
    if _FINDING.search(bare) or _VALUE_IN_TEXT.search(following) or _ESTIMATE.search(bare):
        return False
    return bool(
        _ADVICE.search(text)
        or (_ABSENT.search(clause) and not _VALUE_IN_TEXT.search(clause))
        or ((match := _NOT_MADE.match(bare)) and named_tests(match["what"]))
        or _MADE.fullmatch(bare)
        or _AWAITED.fullmatch(bare)
        or ((match := _MADE_IN_SHORT.fullmatch(bare)) and _stands_for_a_test(match["what"]))
        or _only_names_a_test(bare)
    )


def _stands_for_a_test(text: str) -> bool:
    return bool(named_tests(text)) or bool(re.search(r"\btests?$", text))


def _weighs_as_none(sentence: str) -> bool:
    """Whether every clause of a sentence without a value or a verb of finding scores as none."""
    if _FINDING.search(sentence) or _VALUE_IN_TEXT.search(sentence) or _WITHIN.match(sentence):
        return False
    # Without tests' names: the weights are of what is said about them.
    clauses = [clause for part in sentence.split(", ") if (clause := without_names_of_tests(part))]
    # What stands behind 'because of' may be any finding: the rest is weighed by itself, too.
    return bool(clauses) and all(
        max(map(no_result_score, {clause, _REASON.split(clause, maxsplit=1)[0]})) > NO_RESULT_AT
        for clause in clauses
    )


def no_result_score(clause: str) -> float:
    """How much a clause without names of tests reads as 'there is no result': the mean of the
    weights of its word pieces and the bias, a logit."""
    tokenizer, pieces, bias = _weights()
    ids = tokenizer.encode(clause, add_special_tokens=False).ids
    # The mean, so that a long clause weighs no more than a short one.
    return bias + sum(pieces[i] for i in ids) / max(1, len(ids))


@cache
def _weights() -> tuple["Tokenizer", list[float], float]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    # The encoder's file pads to a fixed length; padding would count in the mean.
    tokenizer.no_padding()
    table = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    return tokenizer, table["pieces"], table["bias"]


def _is_subject(text: str) -> bool:
    """'Sural biopsy' of 'Sural biopsy should be avoided', 'Patient' of 'Patient may agree'."""
    names = named_tests(text)
    ends_in_test = len(text.split()) <= 5 and names and text.endswith(names[-1])
    return bool(ends_in_test or PERSON.fullmatch(text) or _only_names_a_test(text))


def _only_names_a_test(text: str) -> bool:
    """'CT abdomen/pelvis' tells no more than which test it is."""
    profile_of_text = profile(text)
    return bool(
        len(text) < 60
        and profile_of_text.kinds
        and named_tests(text)
        # Any further word may tell a finding: 'MRI pelvis mass'.
        and not any(not is_code(word) for word in profile_of_text.terms)
        and not _VALUE_IN_TEXT.search(text)
        and not _FINDING.search(text)
    )
