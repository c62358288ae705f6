"""Copies of case reports in other words, which a contamination check must find: synonyms, other
order, other numbers, parts left out."""

import random
import re
from collections.abc import Sequence

_GROUPS = """
presented with | came in with | sought care for | was seen for
was admitted | was hospitalized | was taken into hospital
was referred | was sent on
complained of | spoke of | described
reported | stated | told of
revealed | showed | demonstrated | disclosed | brought to light
confirmed | verified | bore out
was performed | was carried out | was done | was undertaken
were performed | were carried out | were done
suggestive of | pointing to | in keeping with | consistent with
suggesting | pointing to | indicating
indicated | pointed to | suggested
identified | detected | found | made out
diagnosed with | found to have | known to have
underwent | had | was given
treated with | managed with | put on
history of | background of | record of earlier
past medical history | previous illnesses | earlier medical record
family history | illnesses in the family
physical examination | clinical examination | examination at the bedside
no significant | no noteworthy | no relevant
unremarkable | within normal limits | without abnormality | normal
within normal limits | normal | in the expected range
elevated | raised | increased | above the reference
decreased | reduced | lowered | below the reference
normal | regular | inconspicuous
severe | marked | pronounced | intense
mild | slight | light
moderate | middling
bilateral | two-sided | on both sides
multiple | several | numerous
large | sizeable | big
small | little | minor
pain | discomfort | ache
swelling | tumefaction | enlargement
tenderness | soreness on pressure
fever | raised temperature | pyrexia
vomiting | emesis
nausea | queasiness
fatigue | tiredness | exhaustion
weakness | loss of strength
shortness of breath | dyspnea | breathlessness
dyspnea | breathlessness | labored breathing
headache | cephalalgia | pain in the head
dizziness | light-headedness
weight loss | loss of weight
abdominal | of the belly
chest | thoracic region
lesion | focus | finding
lesions | foci | findings
mass | space-occupying formation | lump
tumor | growth | neoplasm
rash | skin eruption | exanthem
edema | fluid retention | swelling
bleeding | hemorrhage | blood loss
hypertension | high blood pressure
diabetes mellitus | diabetes
heart rate | pulse
blood pressure | arterial pressure
respiratory rate | breathing rate
temperature | body temperature
oxygen saturation | blood oxygenation
laboratory tests | blood work | laboratory studies
laboratory results | laboratory values | blood findings
blood tests | blood work | hematological testing
ultrasound | ultrasonography | sonography
magnetic resonance imaging | mr tomography
mri | mr imaging
computed tomography | ct
ct scan | computed tomography
chest x-ray | chest radiograph
x-ray | radiograph | plain film
biopsy | tissue sample
histopathology | microscopy of the tissue | histology
immunohistochemistry | immunostaining
surgery | operation | operative treatment
symptoms | complaints
symptom | complaint
patient | individual | subject
female | woman
male | man
woman | female
man | male
year-old | years old
old | of age
child | youngster
months | mo
weeks | wk
one week | seven days
two weeks | a fortnight
days | d
prior | before | previously
prior to | before | ahead of
ago | earlier
initially | at first | to begin with
subsequently | afterwards | later on
approximately | about | around
due to | because of | owing to
associated with | accompanied by | together with
without | lacking | in the absence of
including | among them | such as
no evidence of | no sign of | nothing to suggest
positive for | testing positive for
negative for | testing negative for
showed no | was free of | did not show any
denied | did not report | had no
however | still | yet
additionally | in addition | moreover
also | too
worsening | aggravation | progression
progressive | steadily increasing
sudden | abrupt
acute | of sudden onset
chronic | long-standing
persistent | continuing | lasting
intermittent | coming and going | on and off
recurrent | repeated | relapsing
right | right-hand
left | left-hand
upper | superior
lower | inferior
enlarged | increased in size
thickening | increased thickness
noted | seen | observed
observed | seen | noted
consistent with | compatible with | in keeping with
examination | assessment | inspection
limited | restricted
difficulty | trouble | problems
none reported | nothing told | not stated
none provided | nothing told | not stated
none | nothing told
not specified | not stated
smoking | tobacco use
alcohol | drinking
medication | drug treatment
onset | beginning | start
developed | came to have | went on to have
experienced | had | went through
mentioned | told
serum | blood
hemoglobin | hb
white blood cell count | leukocyte count
platelet count | thrombocytes
creatinine | crea
"""
_SYNONYMS: dict[str, list[str]] = {}
for _line in _GROUPS.strip().splitlines():
    _first, *_others = (part.strip() for part in _line.split("|"))
    _SYNONYMS[_first] = _others
_WORDS = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _SYNONYMS), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w]*-\d)")
_LABEL = re.compile(r"^(?P<lead>[\s*#•-]*)(?P<label>[A-Z][^:*\n]{2,60}?)\**:\**\s*(?P<rest>.*)$")
_SENTENCE = re.compile(r"(?<=[.;!?])\s+(?=[A-Z])")
_SHOWED = re.compile(
    r"^(?P<test>[A-Z][^,;:]{2,60}?) (?:revealed|showed|demonstrated|confirmed|disclosed)"
    r" (?P<found>[^.]{5,})\.?$"
)
_WHEN = re.compile(
    r"^(?P<when>(?:After|On|During|Following|At|In|Upon|Before|When|With|Since) [^,]{3,80}),"
    r" (?P<main>[^.]{8,})\.?$"
)
_TAIL = re.compile(
    r"^(?P<main>[^,.]{8,}?),? (?P<when>(?:after|during|following|before|since|when) [^.,]{5,})\.?$"
)
_LIST = re.compile(r"\b((?:[\w-]+(?: [\w-]+){0,2}, ){1,6})(and|or) ([\w-]+(?: [\w-]+){0,2})\b")
_ASIDES = ("of note, ", "at that point, ", "as recorded, ", "in this instance, ")


def paraphrased(text: str, rng: random.Random, drop: float = 0.1) -> str:
    """`text` in other words: sections and their sentences reordered, a share of them dropped, other
    numbers."""
    sections = [_section(line, rng, drop) for line in text.splitlines() if line.strip()]
    sections = [section for section in sections if section]
    blocks = (
        [sections[at : at + 2] for at in range(0, len(sections), 2)]
        if len(sections) > 3
        else [[line] for line in sections]
    )
    rng.shuffle(blocks)
    return "\n".join(line for block in blocks for line in block)


def _section(line: str, rng: random.Random, drop: float) -> str:
    labelled = _LABEL.match(line)
    label = _reworded(labelled["label"], rng) if labelled else ""
    body = (labelled["rest"] if labelled else line.strip(" -*#")).strip()
    kept = [sentence for sentence in _SENTENCE.split(body) if rng.random() >= drop] or [body]
    told = [_sentence(sentence, rng) for sentence in kept]
    if len(told) > 2:
        at = rng.randrange(1, len(told))
        told = told[at:] + told[:at]
    whole = " ".join(told)
    if not label:
        return whole
    return f"{whole} ({label})" if rng.random() < 0.3 else f"{label[0].upper()}{label[1:]}: {whole}"


def _sentence(sentence: str, rng: random.Random) -> str:
    bare = sentence.strip()
    if found := _SHOWED.match(bare):
        bare = f"{_capital(found['found'])} was what {_lowered(found['test'])} showed"
    elif found := _WHEN.match(bare):
        bare = f"{_capital(found['main'])} {_lowered(found['when'])}"
    elif found := _TAIL.match(bare):
        bare = f"{_capital(found['when'])}, {_lowered(found['main'])}"
    bare = _LIST.sub(lambda listed: _relisted(listed, rng), bare.rstrip(". "))
    worded = _numbers(_reworded(bare, rng), rng)
    if rng.random() < 0.2 and worded:
        worded = _capital(rng.choice(_ASIDES)) + _lowered(worded)
    return worded + "."


def _relisted(listed: re.Match[str], rng: random.Random) -> str:
    items = [item.strip() for item in listed[1].split(",") if item.strip()] + [listed[3]]
    turned: Sequence[str] = items[::-1]
    return (
        ", ".join(turned[:-1]) + f" {listed[2]} {turned[-1]}" if rng.random() < 0.8 else listed[0]
    )


def _reworded(text: str, rng: random.Random) -> str:
    def other(found: re.Match[str]) -> str:
        word = rng.choice(_SYNONYMS[found[0].casefold()])
        return _capital(word) if found[0][0].isupper() else word

    return _WORDS.sub(other, text)


def _numbers(text: str, rng: random.Random) -> str:
    """Each number up to 15 % larger or smaller, with as many decimals; a year some years later or
    earlier."""

    def other(found: re.Match[str]) -> str:
        value, decimals = float(found[0]), len(found[0].partition(".")[2])
        if decimals == 0 and 1900 < value < 2100:
            return str(int(value) + rng.choice((-4, -3, -2, 2, 3)))
        changed = value * rng.uniform(0.85, 1.15)
        if decimals == 0 and round(changed) == value:
            changed = value + rng.choice((-1, 1)) if value > 1 else value + 1
        return f"{changed:.{decimals}f}"

    return _NUMBER.sub(other, text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lowered(text: str) -> str:
    """Lower-case first letter, unless the word is an abbreviation."""
    word = text.split(" ", 1)[0]
    return text if sum(c.isupper() for c in word) > 1 else text[:1].lower() + text[1:]
