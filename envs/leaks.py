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
    is_disease,
    mentions,
    names_in,
    parts_of,
    tells,
)
from medaction.envs.patients import ANIMAL
from medaction.envs.records import CaseReport, StructuredCase
from medaction.words.names import normalise
from medaction.words.sentences import split_outside_brackets

COMPLAINT = re.compile(r"(?:chief|presenting|main) complaint|reason for|objective", re.IGNORECASE)
SENTENCE_END = re.compile(r"(?<=[.;!?])\s+|(?<=[。；！？])\s*")
# '- Chief Complaint: pain' -> label '- Chief Complaint: '
LABEL = re.compile(r"\s*(?:[-*•]\s*)?(?:[A-Z][\w /&()'-]{2,45}:\s*)?")

_DENIAL = re.compile(
    r"\bden(?:y|ies|ied|ying)\b|\b(?:no|not|without|never|negative for)\b(?=[^.;]{0,60}\b(?:history"
    r"|contacts?|exposures?|exposed|travel\w*|known|recent|previous|prior|causes?)\b)",
    re.IGNORECASE,
)
_EXPOSURE = re.compile(
    r"\bendemic\b|\bexpos(?:ed|ures?)\b|\bcontact (?:with|of|to)\b|\bclose contact|\btravel"
    r"|\bimmuni[sz]|\bvaccin|\bprophyla|\boutbreak|\bindex case",
    re.IGNORECASE,
)
_HISTORY = re.compile(
    r"\b(?:known|history of|previous(?:ly)?|prior|earlier|(?:years?|months?|weeks?) (?:ago|before"
    r"|prior)"
    r"|since|status post|s/p|diagnosed in|for (?:\w+ )?years|in (?:19|20)\d\d)\b",
    re.IGNORECASE,
)
RELATIVE = re.compile(
    r"\b(?:mothers?|fathers?|brothers?|sisters?|siblings?|sons?|daughters?|uncles?|aunts?|cousins?"
    r"|parents?|nieces?|nephews?|twins?|grand\w+"
    r"|famil\w+(?! (?:doctor|physician|practitioner|medicine))|[mp]aternal|relatives?)\b",
    re.IGNORECASE,
)
# What stands before the name of something taken: 'he takes ...', 'given ...'.
_INTAKE = re.compile(
    r"\b(?:tak(?:es?|ing)|took|given|receiv\w+|ingest\w+|dr[aiu]nk\w*|swallowed|inhaled"
    r"|inject\w+|prescribed|started|dose of)\b[^.;,]{0,40}\Z",
    re.IGNORECASE,
)
# The last word of a cause that is something done or suffered, no disease.
_EXPOSURE_NOUN = re.compile(
    r".*\b(?:use|ab?use|misuse|ingestion|exposure|therapy|treatment|overdose|bite|sting|injection"
    r"|inhalation|withdrawal|surgery|trauma|consumption|vaccination|intake|fall|accident)s?",
    re.IGNORECASE,
)
_SHOWN = re.compile(
    r"\b(?:show(?:ed|s|n)|reveal|demonstrat|confirm|detected|diagnosed as|suggest|consistent with)",
    re.IGNORECASE,
)
# That a disease was found or feared, not brought along.
_CONCLUDED = re.compile(
    r"\b(?:show|reveal|demonstrat|confirm|detect|diagnos|suggest|consistent with|suspect|thought"
    r"|found)",
    re.IGNORECASE,
)
# What became of the patient. A death in the family, a remission in the past or a visit 'for
# follow-up' is history.
_OUTCOME = re.compile(
    r"""\b(?:(?:patient|he|she|infant|neonate|child|baby|boy|girl|man|woman)\s(?:\w+\s)?
        (?:died|expired|recovered|succumbed|passed\saway)
    |pronounced\sdead|(?:out\sof|left)\s(?:the\s)?hospital|(?:went|sent|returned)\shome
    |(?:was|were)\s(?:\w+\s)?discharged(?!\sfrom\san)|autopsy|post-?mortem
    |at\s(?:the\s|an?\s)?(?:[\w-]+[\s-])?(?:day|week|month|year)s?['’]?[\s-](?:of\s)?follow-?\s?up
    |follow-?\s?up\s(?:\w+\s)?(?:showed|revealed|demonstrated|confirmed)
    |(?:no|without)\s(?:evidence\sof\s|signs?\sof\s)?(?:recurrence|relapse)\s(?:at|after|during|was)
    |(?:uneventful|full|complete)\s(?:post-?operative\s)?recovery
    |post-?operative\s(?:course|period|recovery))\b""",
    re.IGNORECASE | re.VERBOSE,
)
_TREATMENT = re.compile(
    r"""\b(?:(?:was|were)\s(?:then\s|immediately\s|subsequently\s|empirically\s)?
        (?:started|commenced|initiated|placed|put)\s(?:on|with)
    |(?:treatment|therapy)\s(?:with\s[\w\s-]{3,40}\s)?
        (?:was|were)\s(?:\w+\s)?(?:started|initiated|begun)
    |responded\s(?:well\s|poorly\s)?to|improved\s(?:after|with|on|following)
    |underwent\s(?:\w+\s){0,2}(?:surgery|laparotomy|resection|\w{4,}ectomy|\w*therapy))\b""",
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Mention:
    """A name of the diagnosis that a sentence of the observation tells. `excuse` says why it may
    stand there; empty: it is a leak."""

    name: DiagnosisName
    sentence: str
    excuse: str


def names_of_case(report: CaseReport, case: StructuredCase) -> tuple[DiagnosisName, ...]:
    """The diagnosis' names, with the abbreviations that the report declares for them."""
    names = names_in(case.diagnosis, case.synonyms)
    declared = declared_abbreviations(report.text, names)
    return names + declared + abbreviations_told(case.initial_observation, names)


def mentions_in(text: str, names: tuple[DiagnosisName, ...], case: StructuredCase) -> list[Mention]:
    """All mentions of the names in `text`, the initial observation of `case` or a part of it."""
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
        parts = split_outside_brackets(SENTENCE_END, line[len(label) :])
        sentences += [label + part for part in parts if part]
    return sentences


def complaint_of(observation: str) -> str:
    """What the patient comes with: the first sentence, which says who it is, and the chief
    complaint."""
    sentences = sentences_of(observation)
    return "\n".join([*sentences[:1], *filter(_is_complaint, sentences[1:])])


def outcomes_in(text: str) -> list[str]:
    """The passages that tell what became of the patient."""
    return _passages_of_patient(_OUTCOME, text)


def treatments_in(text: str) -> list[str]:
    """The passages that tell of treatment that was begun or answered to."""
    return _passages_of_patient(_TREATMENT, text)


def _passages_of_patient(pattern: re.Pattern[str], text: str) -> list[str]:
    """The matches outside of past and family histories."""
    return [
        " ".join(match[0].split())
        for line in text.splitlines()
        if not re.match(r"\W*(?:\w+\s){1,2}history\b", line, re.IGNORECASE)
        for match in pattern.finditer(line)
    ]


def _is_complaint(sentence: str) -> bool:
    return COMPLAINT.search(sentence[:40]) is not None


def _excuse(
    name: DiagnosisName, sentence: str, names: tuple[DiagnosisName, ...], case: StructuredCase
) -> str:
    for clause in re.split(r";|\b(?:but|however)\b", sentence):
        if tells(clause, name):
            # The cue must not be a word of the name itself: 'contact dermatitis'.
            around = re.sub(re.escape(name.text), " ", clause, flags=re.IGNORECASE)
            denial = _DENIAL.search(around)
            if denial and not tells(around[: denial.start()], name):
                return "denied"
            if name.kind == "lesser" and _INTAKE.search(_before(name, clause)):
                return "taken"
            is_contact = _EXPOSURE.search(around) or ANIMAL.search(around)
            if is_contact and not _SHOWN.search(around):
                return "place or contact"
    if name.kind in ("lesser", "effect") and _in_complaint(name, case):
        return "the complaint"
    if name.kind == "cause":
        if _EXPOSURE_NOUN.fullmatch(name.part) or _is_known(name, sentence, case):
            return "a known cause"
        if _effect_is_left(names, case) and not _CONCLUDED.search(sentence):
            return "a cause"
        return ""
    is_known = _is_known(name, sentence, case) and not RELATIVE.search(sentence)
    is_lesser = name.kind == "lesser" or _another_is_left(name, names, case)
    return "known from before" if is_known and is_lesser else ""


def _before(name: DiagnosisName, clause: str) -> str:
    return clause[: max(0, clause.casefold().find(name.text.casefold()))]


def _is_known(name: DiagnosisName, sentence: str, case: StructuredCase) -> bool:
    """Whether the sentence tells it as past, or another one does and this one concludes nothing:
    what is known cannot be hidden."""
    if _is_history(sentence):
        return True
    return not _CONCLUDED.search(sentence) and any(
        _is_history(further)
        and not RELATIVE.search(further)
        and not _DENIAL.search(further)
        and tells(further, name)
        for further in sentences_of(case.initial_observation)
    )


def _is_history(sentence: str) -> bool:
    """Whether a sentence tells the past; its label does only where it says so ('Past Medical
    History', not 'History of Present Illness')."""
    label = LABEL.match(sentence)[0]  # type: ignore[index]
    text = sentence[len(label) :]
    is_past = re.match(r"\W*past\b", label, re.IGNORECASE) or _HISTORY.search(text)
    return bool(is_past) and not _SHOWN.search(text)


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
