"""What an initial observation tells of the diagnosis, and whether that is a leak or history.

A name of the diagnosis is a leak unless it stands there as what the patient brings along: denied
('no history of tuberculosis'), a place or contact ('an area endemic for blastomycosis'), a cause or
a lesser name told as past ('seminoma two years ago'), what was taken ('given lamotrigine'), or the
complaint of which the cause is to be found.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from medaction.envs.diagnosis_names import (
    DiagnosisName,
    abbreviations_told,
    declared_abbreviations,
    genes_of,
    is_disease,
    mentions,
    names_in,
    organisms_told,
    parts_of,
    tells,
)
from medaction.envs.naming import TABLE
from medaction.envs.patients import ANIMAL
from medaction.envs.records import CaseReport, StructuredCase
from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern
from medaction.words.plurals import singular
from medaction.words.sentences import LABEL, split_outside_brackets

COMPLAINT = phrase_pattern(
    "chief complaint | presenting complaint | main complaint | reason for | objective"
)
SENTENCE_END = re.compile(r"(?<=[.;!?])(?!(?<=\b[A-Z]\.)\s+[a-z])\s+|(?<=[。；！？])\s*")
"""Where a sentence or a part of it ends; not behind the initial of 'S. aureus'."""

# A denial, and what makes one of a disease a history: 'no known contact with tuberculosis'.
_DENIES = phrase_pattern("deny | denies | denied | denying")
_NO = phrase_pattern("no | not | without | never | negative for")
# 'No contact with tuberculosis' is history; 'no tuberculosis was found' tells of a search.
_BROUGHT_ALONG = phrase_pattern(
    "history | contact | exposure | exposed | travel* | known | recent | previous | prior | cause"
)
OTHER_CAUSE = phrase_pattern(
    " | ".join(
        f"other {between}{noun}* {of}"
        for noun in ("cause", "reason", "explanation")
        for of in ("of", "for")
        for between in ("", "* ", "* * ")
    )
)
"""'No other causes of chylothorax' tells that there is one."""
_DENIED_CHARACTERS = 60
"""Characters behind a 'no' within which it denies: our choice."""
_EXPOSURE = phrase_pattern(
    "endemic | exposed | exposure | contact with | contact of | contact to | close contact"
    " | travel* | immuniz* | immunis* | vaccin* | prophyla* | outbreak | index case"
    " | where is | where are"  # 'where malaria is common': its name is taken out before
)
_HISTORY = phrase_pattern(
    "known | history of | previous | previously | prior | earlier | since | status post | s/p"
    " | diagnosed in | years ago | year ago | months ago | month ago | weeks ago | week ago"
    " | years before | year before | months before | month before | weeks before"
    " | for years | for * years | in 19# | in 20#"
)
_RELATIVES = (
    "mother | father | brother | sister | sibling | son | daughter | uncle | aunt | cousin"
    " | parent | niece | nephew | twin | grand* | maternal | paternal | relative"
)
RELATIVE = re.compile(
    phrase_pattern(_RELATIVES).pattern
    # 'Familial hypercholesterolemia' is a disease.
    + r"|\bfamil(?:y|ies)\b(?! (?:doctor|physician|practitioner|medicine)\b)"
    + r"|\bfamilial history\b",
    re.IGNORECASE,
)
# What stands before the name of something taken: 'he takes ...', 'given ...'.
_VERBS_OF_INTAKE = (
    "take | taking | took | given | receiv* | ingest* | drink* | drank | drunk | swallowed"
    " | inhaled | inject* | prescribed | started | dose of"
)
_INTAKE = phrase_pattern(_VERBS_OF_INTAKE)
_TAKES = phrase_pattern(f"{_VERBS_OF_INTAKE} | uses | using | is on | was on | been on")
_DISEASE = phrase_pattern(TABLE["diseases"])
_BEHIND_A_DRUG = phrase_pattern(
    "for | and | or | in | at | since | as | to | on | by | with | from | daily | every | twice"
    " | once | when | after | before | until | during"
)
_INTAKE_CHARACTERS = 50
"""Characters before a name within which a verb of intake has it for its object: our choice."""
# The last word of a cause that is something done or suffered, no disease.
_EXPOSURE_NOUNS = frozenset(
    """
    use abuse misuse ingestion exposure therapy treatment overdose bite sting injection inhalation
    withdrawal surgery trauma consumption vaccination intake fall accident
    """.split()  # noqa: SIM905
)
# That a disease was found; a sentence that says so tells no history.
_FINDINGS = "show* | reveal* | demonstrat* | confirm* | detect* | suggest* | consistent with"
_SHOWN_DISEASE = phrase_pattern(f"{_FINDINGS} | diagnosed as")
# That it was found or feared, not brought along.
_CONCLUDED = phrase_pattern(f"{_FINDINGS} | diagnos* | suspect* | thought | found")
# That a known disease became another one, which is not known for that.
_BECAME = phrase_pattern(
    "progress* to | progress* into | evol* to | evol* into | transform* to | transform* into"
)
# What became of the patient. A death in the family, a remission in the past or a visit 'for
# follow-up' is history.
_END_OF_PATIENT = re.compile(
    r"\b(?:patient|s?he|infant|neonate|child|baby|boy|girl|m[ae]n|woman)\s(?:\w+\s)?"
    r"(?:died|expired|recovered|succumbed|passed\saway)\b"
    r"|\b(?:was|were)\s(?:\w+\s)?discharged(?!\sfrom\san)\b"
    r"|\b(?:was|were)\s(?!born\b)[^.;,]{3,60}\sand\sdischarged\s(?:home|on|after)\b"
    r"|\bat\s(?:[\w-]+[\s-]){0,3}(?:day|week|month|year)s?['’]?[\s-](?:of\s)?follow-?\s?up\b"
    r"|\b(?:no|without)\s(?:\w+\sof\s)?(?:recurrence|relapse)\s(?:at|after|during|was)\b",
    re.IGNORECASE,
)
_OUTCOME = phrase_pattern(
    "pronounced dead | out of hospital | out of the hospital | left hospital | left the hospital"
    " | went home | sent home | returned home | autopsy | postmortem | post mortem"
    " | follow up showed | follow up * showed | follow up revealed | follow up * revealed"
    " | follow up demonstrated | follow up confirmed | uneventful recovery | full recovery"
    " | complete recovery | postoperative course | postoperative period | postoperative recovery"
    " | post operative course | post operative period | post operative recovery"
)
_BEGUN_TREATMENT = re.compile(
    r"\b(?:was|were)\s(?:\w+\s)?(?:started|commenced|initiated|placed|put)\s(?:on|with)\b"
    r"|\b(?:treatment|therapy)\s(?:with\s[\w\s-]{3,40}\s)?(?:was|were)\s(?:\w+\s)?"
    r"(?:started|initiated|begun)\b",
    re.IGNORECASE,
)
_TREATMENT = phrase_pattern(
    "responded to | responded well to | responded poorly to | improved after | improved with"
    " | improved on | improved following | underwent surgery | underwent laparotomy"
    " | underwent resection | underwent * surgery | underwent * resection | underwent *ectomy"
    " | underwent * *ectomy | underwent *therapy"
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A name of the diagnosis that a sentence of the observation tells. `excuse` says why it may
    stand there; empty: it is a leak."""

    name: DiagnosisName
    sentence: str
    excuse: str


def names_of_case(report: CaseReport, case: StructuredCase) -> tuple[DiagnosisName, ...]:
    """The diagnosis' names, with the abbreviations that the report declares for them, and the genes
    that were tested."""
    names = names_in(case.diagnosis, case.synonyms)
    declared = declared_abbreviations(report.text, names)
    spelt = abbreviations_told(case.initial_observation, names, case.diagnosis)
    organisms = organisms_told(case.initial_observation, case.diagnosis)
    return (*names, *declared, *spelt, *organisms, *genes_of(case.tests, case.diagnosis))


def mentions_in(text: str, names: tuple[DiagnosisName, ...], case: StructuredCase) -> list[Mention]:
    """All mentions of the names in `text`, the initial observation of `case` or a part of it."""
    # All of the text once, before every sentence with every name.
    candidates = [name for name in names if tells(text, name)]
    if not candidates:
        return []
    return [
        Mention(name, sentence, _excuse(name, sentence, names, case))
        for sentence in sentences_of(text)
        for name in candidates
        if tells(sentence, name)
    ]


def sentences_of(text: str) -> list[str]:
    """The sentences of an observation; each has its line's label before it."""
    sentences = []
    for line in text.splitlines():
        label = LABEL.match(line)[0]  # type: ignore[index]
        # With its label before each part: 'Past history: ...' holds to the line's end.
        parts = split_outside_brackets(SENTENCE_END, line[len(label) :])
        sentences += [label + part for part in parts if part]
    return sentences


def complaint_of(observation: str) -> str:
    """What the patient comes with: the first sentence, which says who it is, and the chief
    complaint."""
    sentences = sentences_of(observation)
    # The first sentence: 'A man of 40 came with ...' in a report without labels.
    return "\n".join([*sentences[:1], *filter(_is_complaint, sentences[1:])])


def outcomes_in(text: str) -> list[str]:
    """The passages that tell what became of the patient.

    >>> outcomes_in("At 6 months of follow-up she was well. No recurrence was seen.")
    ['At 6 months of follow-up', 'No recurrence was']
    >>> outcomes_in("Seen at our clinic for follow-up; breast cancer in 2012, no recurrence.")
    []
    """
    return _passages_of_patient(text, _END_OF_PATIENT, _OUTCOME)


def treatments_in(text: str) -> list[str]:
    """The passages that tell of treatment that was begun or answered to."""
    return _passages_of_patient(text, _BEGUN_TREATMENT, _TREATMENT)


def _passages_of_patient(text: str, *patterns: re.Pattern[str]) -> list[str]:
    """The matches outside of past and family histories."""
    return [
        " ".join(match[0].split())
        for line in text.splitlines()
        if not re.match(r"\W*(?:\w+\s){1,2}history\b", line, re.IGNORECASE)
        for pattern in patterns
        for match in pattern.finditer(line)
    ]


def _is_complaint(sentence: str) -> bool:
    # A label stands at the beginning; 'reason for' further on is prose.
    return COMPLAINT.search(sentence[:40]) is not None


def _excuse(
    name: DiagnosisName, sentence: str, names: tuple[DiagnosisName, ...], case: StructuredCase
) -> str:
    # 'No tuberculosis, but brucellosis': a denial ends at 'but'.
    for clause in re.split(r";|\b(?:but|however)\b", sentence):
        if tells(clause, name):
            # The cue must not be a word of the name itself: 'contact dermatitis'.
            around = re.sub(re.escape(name.text), " ", clause, flags=re.IGNORECASE)
            denial = _denial_in(around)
            # A second mention before the cue is not denied by it.
            presumed = OTHER_CAUSE.search(around)
            if denial and not presumed and not tells(around[: denial.start()], name):
                return "denied"
            is_aside = f"({name.text})" in case.diagnosis
            if (name.kind == "lesser" and _is_taken(name, clause)) or (
                is_aside and _is_drug(name, clause)
            ):
                return "taken"
            # Unless the sentence shows the disease: 'contact tracing confirmed tuberculosis'.
            is_contact = _EXPOSURE.search(around) or ANIMAL.search(around)
            if is_contact and not _SHOWN_DISEASE.search(around):
                return "place or contact"
    # An answer in the complaint is a leak all the same.
    if name.kind in ("lesser", "effect") and _in_complaint(name, case):
        return "the complaint"
    if name.kind == "cause":
        last_word = normalise(name.part).rpartition(" ")[2]
        if singular(last_word) in _EXPOSURE_NOUNS or _is_known(name, sentence, case):
            return "a known cause"
        if _effect_is_left(names, case) and not _CONCLUDED.search(sentence):
            return "a cause"
        return ""
    # The history of a relative is no history of the patient.
    is_known = _is_known(name, sentence, case) and not RELATIVE.search(sentence)
    is_lesser = name.kind == "lesser" or _another_is_left(name, names, case)
    return "known from before" if is_known and is_lesser else ""


def _denial_in(clause: str) -> re.Match[str] | None:
    """The word that denies a history: 'denies ...', or a 'no' with what is brought along behind
    it."""
    if denial := _DENIES.search(clause):
        return denial
    for no in _NO.finditer(clause):
        if _BROUGHT_ALONG.search(clause, no.end(), no.end() + _DENIED_CHARACTERS):
            return no
    return None


def _is_taken(name: DiagnosisName, clause: str) -> bool:
    """Whether the name is the object of a verb of intake, with no comma between."""
    before = clause[: max(0, clause.casefold().find(name.text.casefold()))]
    # 'He took aspirin, warfarin': the comma ends what the verb takes.
    return bool(_INTAKE.search(before.rpartition(",")[2][-_INTAKE_CHARACTERS:]))


def _is_drug(name: DiagnosisName, clause: str) -> bool:
    """Whether a name in brackets of one word, that in 'myopathy (simvastatin)', is the very object
    of a verb of intake: nobody takes a disease."""
    before, _, behind = clause.partition(name.text)
    # 'Leprosy drugs' name a disease.
    if behind[:1] == " " and behind[1:2].islower() and not _BEHIND_A_DRUG.match(behind, 1):
        return False
    # A dose or an article may stand between them: 'takes a low-dose simvastatin'.
    verb = max((match.end() for match in _TAKES.finditer(before)), default=-1)
    between = before[verb:].split() if verb >= 0 else ["for"] * 3
    is_word = name.text.islower() and " " not in name.text and not _DISEASE.search(name.text)
    return is_word and len(between) < 3 and not {"for", "of", "with"} & set(between)


def _is_known(name: DiagnosisName, sentence: str, case: StructuredCase) -> bool:
    """Whether the sentence tells it as past, or another one does and this one concludes nothing:
    what is known cannot be hidden."""
    if is_history(sentence):
        return True
    return not _CONCLUDED.search(sentence) and any(
        is_history(further)
        # A sister's lupus does not make the patient's own one known.
        and not RELATIVE.search(further)
        and not _denial_in(further)
        and tells(further, name)
        for further in sentences_of(case.initial_observation)
    )


def is_history(sentence: str) -> bool:
    """Whether a sentence tells the past; its label does only where it says so ('Past Medical
    History', not 'History of Present Illness')."""
    label = LABEL.match(sentence)[0]  # type: ignore[index]
    text = sentence[len(label) :]
    # 'Past history: ...' says it in the label, and nowhere in the sentence.
    is_past = re.match(r"\W*past\b", label, re.IGNORECASE) or (
        _HISTORY.search(text) and not _BECAME.search(text)
    )
    return bool(is_past) and not _SHOWN_DISEASE.search(text)


def _in_complaint(name: DiagnosisName, case: StructuredCase) -> bool:
    """A complaint that is labelled so; without labels only a symptom of the first sentence."""
    is_symptom = name.kind == "effect" and _may_be_a_symptom(name.text)
    return any(
        tells(sentence, name)
        and (_is_complaint(sentence) or (is_symptom and not _CONCLUDED.search(sentence)))
        for sentence in _complaint(case.initial_observation)
    )


def _may_be_a_symptom(name: str) -> bool:
    """'Diarrhea', 'hiccups'; 'agranulocytosis' and 'coronary vasospasm' are diseases."""
    return " " not in name and not is_disease(name)


@lru_cache(maxsize=16)
def _complaint(observation: str) -> tuple[str, ...]:
    return tuple(complaint_of(observation).splitlines())


def _effect_is_left(names: tuple[DiagnosisName, ...], case: StructuredCase) -> bool:
    """Whether what the cause brought about is still to be found: neither a symptom nor the
    complaint."""
    effects = [name for name in names if name.kind == "effect"]
    return bool(effects) and not any(_in_complaint(name, case) for name in effects)


def _another_is_left(
    name: DiagnosisName, names: tuple[DiagnosisName, ...], case: StructuredCase
) -> bool:
    """Whether the diagnosis joins another disease that the observation does not tell at all."""
    mine = normalise(name.part)
    return any(
        part.role == "disease"
        and normalise(part.text) != mine
        and not mentions(case.initial_observation, part.text)
        for part in parts_of(case.diagnosis)
    )
