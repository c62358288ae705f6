"""Whether a report tells of one human patient: an environment is one patient's."""

import re

from medaction.words.phrases import phrase_pattern, phrase_regex

_NUMBER_WORDS = "two | three | four | five | six | seven | eight | nine | ten | several | both"
_PEOPLE = "boy | girl | infant | neonate | newborn | patient | adolescent | student"
_PATIENTS = (
    "case | sibling | sister | brother | twin | individual | relative | family member"
    f" | male | female | {_PEOPLE}"
)
_ORDINALS = "first|second|third|fourth"
_SEVERAL = re.compile(
    rf"\b(?:{phrase_regex(_NUMBER_WORDS, '')}|[2-9]|(?:case )?series of)(?: [\w-]+){{0,2}}"
    rf" (?:{phrase_regex(_PATIENTS, 's')}|(?:wo)?men|children)\b",
    re.IGNORECASE,
)
# Two ages: 'A 41-year-old father and his 14-year-old daughter', 'a man aged 41 and his son aged
# 12'; 'diagnosed with asthma aged 4 and with eczema aged 6' is one. A newborn's age is in days, and
# the mother no patient.
_YEARS_OLD = r"\d+[- ]years?[- ]old\b"
_AGED_YEARS = r"aged \d+\b(?! ?(?:hour|day|week|month))(?: years?\b)?"
_PAIR = re.compile(
    rf"(?:an? )?(?:(?!(?:his|her|their)\b)(?:[\w-]+ )?(?:couple|twins|siblings)\b(?! of\b)"
    rf"|{_YEARS_OLD} [\w -]{{1,40}}? and (?:(?:[\w-]+ ){{1,3}}?{_YEARS_OLD}|(?:his|her) \w+, \d+,)"
    rf"|(?:(?!with\b)[\w-]+ ){{1,3}}?{_AGED_YEARS} and (?:an?|(?:his|her)(?: [\w-]+)?) [\w-]+"
    rf" {_AGED_YEARS}"
    rf"|[^.]{{3,60}}?\baged \d+ and \d+\b)",
    re.IGNORECASE,
)
# What may stand before the patients: a bullet, a label, 'We report', 'In 2015 we saw'.
_LABEL_OF_PATIENT = re.compile(
    r"\W*(?:[A-Z][\w ]{2,40}:)?\W*(?:a |(?:[A-Z][^.:]{3,60} )?[Ww]e \w+ )?"
)
_NUMBERED = re.compile(r"\b(case|patient|twin|sibling)s? (?:no\.? ?|#)?([1-9]|[A-F])\b(?!-)", re.I)
_SHORT = re.compile(r"(?<![\w-])(P[1-9])\b(?=\s*[:,;)(]| (?:had|has|was|is|with|\w+ed)\b)")
_HEADING = re.compile(
    r"^\W*(?:[\d.]+\s*)?(?:clinical |the )?("
    r"(?:case|patient)(?: (?:report|no\.?|number|presentation))?"
    r" ?#?(?:[1-9]|[A-F]|I{1,3}|one|two|three)"
    rf"|(?:{_ORDINALS}) (?:case|patient|twin|sibling))\b.{{0,60}}$",
    re.IGNORECASE | re.MULTILINE,
)
# A patient's name where it opens what is told of the patient.
_WHO = (
    r"(?:(?:case|patient|twin|sibling) (?:[1-9]|[A-F])|P[1-9]"
    rf"|(?:{_ORDINALS}) (?:case|patient|twin|sibling))\b(?!-)"
)
# 'A man of 38 (first case), one of 26 (second case)': names behind what is told.
_NAME_BEHIND = re.compile(rf" (?P<told>[^,;:()]+) \((?P<name>{_WHO})\)[,;.]?", re.IGNORECASE)
_PERSON_NAME = re.compile(
    rf"(?:(?<=[.;,:] )|(?<=\A)|(?<=[-*#\s]))\**(?P<name>{_WHO})\**:?\**[ \t]*", re.IGNORECASE
)
# Bullets and marks, and the name of a section behind them: '- **Chief Complaint:** '.
_OPENING_OF_LINE = re.compile(
    rf"[-*#•\s]*(?:\**(?!{_WHO})[A-Z][\w ()/,-]{{1,40}}\**:\**[ \t]+)?", re.IGNORECASE
)
_COUNT = re.compile(rf"\b(?:{phrase_regex(_NUMBER_WORDS, '')}|[2-9])\b", re.IGNORECASE)
# Of a group everybody's age is told at once, and in a table: '| 1 | M/22 | colic |'.
_AGES_OF_A_GROUP = re.compile(
    r"\b(?:their ages?|ages) (?:ranged|ran|were|was|varied|spanned)\b"
    r"|\bages? ranging (?:from|between)\b",
    re.IGNORECASE,
)
_AGE_IN_A_ROW = re.compile(
    r"^\|[^\n]{0,200}?\| *(?:[MF][ ,/]{0,2}\d{1,2}|\d{1,2}[ ,/]{0,2}[MF]) *\|", re.MULTILINE
)
_LONG = 6000
"""Characters from which on a text is a report, whose patients have headings; its prose may speak of
'patient 2' of another report."""
_LONGEST_TITLE = 150
"""Characters. Of 375 real titles 21 are longer, and none of these tells an age."""
_AGED = re.compile(
    r"\b(?:(?P<before>\w+)[- ](?P<unit>year|month|week|day)s?[- ]old"
    r"|aged (?P<behind>\d+)(?:[- ](?P<units>year|month|week|day)s?)?)\b",
    re.IGNORECASE,
)
_SHORT_AGE = re.compile(r"\W*\d{1,3} ?(?:y/?o ?)?[MF]\b")  # '67F'
NEWBORN = r"\b(?:newborn|neonates?|infant|baby|twins)\b"
_CHILD_AS_SUBJECT = re.compile(
    r"(?:^|[,;:.] )(?:and |but |while )?(?:(?:the|her|their|an?|both) )?"
    # 'Pregnancy with twins', 'she had a baby' are of the mother.
    r"(?:(?!(?:with|of|for|to|had|has|have|expects|carries)\b)[\w-]+ ){0,2}?"
    rf"(?:(?P<newborn>{NEWBORN}(?! of\b))|son\b|daughter\b)",
    re.IGNORECASE,
)
_BIRTH = phrase_pattern("born | birth | apgar | neonatal | delivered")
# Animals, as patients or as contacts of one. Words that follow make a person of them: 'a dog
# breeder', 'a cat owner'.
_ANIMALS = (
    "dog | bitch | puppy | puppies | cat | kitten | horse | mare | stallion | foal | pony | ponies"
    " | donkey | cow | bull | heifer | cattle | sheep | ewe | lamb | goat | pig"
    " | piglet | sow | rabbit | ferret | hamster | rat | mouse | mice | parrot | camel | alpaca"
    " | llama | monkey"
)
_OF_AN_ANIMAL = (
    "canine | feline | equine | bovine | ovine | caprine | porcine | avian | neutered | spayed"
    " | gelding | castrated | intact male | intact female | shorthair | longhair | retriever"
    " | terrier | spaniel | hound | poodle | captive | free ranging | purebred | crossbred"
    " | mixed breed"
)
ANIMAL = re.compile(
    rf"\b(?:{phrase_regex(_ANIMALS)}(?![- ](?:\w*(?:er|or|ist|man|men)"
    rf"|{phrase_regex('bite | scratch* | hair | allerg* | milk | meat', '')})s?\b)"
    rf"|{phrase_regex(_OF_AN_ANIMAL)})\b",
    re.IGNORECASE,
)
_IN_AN_ANIMAL = re.compile(
    rf"\b(?:in|of) (?:an?|the|two|three) (?:[\w-]+ ){{0,3}}?{ANIMAL.pattern}(?!['’-]"
    r"|(?: (?!with)\w+)? (?:syndrome|disease|fever|sign)\b)",
    re.IGNORECASE,
)
# What no person has, and who tells an animal's history; 'the owner of the house' tells none.
_PARTS_OF_AN_ANIMAL = (
    "hoof | hooves | paw | beak | plumage | feathers | udder | rumen | stifle | fetlock | muzzle"
    " | gill | fin | hindlimb | hind limb | hind leg | foreleg | forelimb"
)
_OWNERS = "owner | keeper | handler | breeder"
_HISTORY_BY_AN_OWNER = (
    "reported | noticed | noted | observed | described | brought | saw | seen | declined | elected"
)
_VETERINARY = re.compile(
    rf"\b(?:its|the|each|both|all|left|right) {phrase_regex(_PARTS_OF_AN_ANIMAL)}\b(?! of\b)"
    rf"|\b(?:its|the) {phrase_regex(_OWNERS)}(?: had)? {phrase_regex(_HISTORY_BY_AN_OWNER, '')}\b"
    rf"|\bits {phrase_regex(_OWNERS)}\b|\boff (?:its )?feed\b|\bbody condition score\b",
    re.IGNORECASE,
)
_FIRST_ENCOUNTER = 2000
"""Characters behind a patient's age within which it is told who owns it and what it looks like."""
# Of the leg, but where it is the patient: 'a 3-week-old Holstein calf'.
_CALF = re.compile(r"\s*(?:[\w-]+ ){0,2}cal(?:f|ves)\s*", re.IGNORECASE)
# A patient who is no person and no he or she, but it: 'It was lethargic.'
_NEUTER = re.compile(r"(?<=\. )It (?:was|is|had|has|ate|weighed) [^.]*")
_END_OF_PHRASE = re.compile(r"[.,;]| (?:with|who|was|is|has|had|presented|coughs?)\b")
# 'Farmer', 'dentist', 'housewife': a person by the ending of the word.
PERSON = re.compile(
    phrase_pattern(f"man | men | woman | women | child | baby | person | lady | {_PEOPLE}").pattern
    + r"|\b\w{3,}(?:er|or|ist|ian|wife|man)\b",
    re.IGNORECASE,
)
_HE_OR_SHE = phrase_pattern("he | she | his | her | him | they | fetus")


def patients_in(text: str) -> tuple[str, ...]:
    """The patients that a text tells apart, as it names them; empty where it tells of one.

    >>> patients_in("P1: fever. P2: large spleen."), patients_in("Case report of one patient")
    (('P1', 'P2'), ())
    """
    # Blank lines would part a heading from its line.
    text = "\n".join(filter(str.strip, text.splitlines()))
    for pattern in (_HEADING,) if len(text) > _LONG else (_SHORT, _NUMBERED, _HEADING):
        names = [_capitalised(" ".join(match.groups())) for match in pattern.finditer(text)]
        if len(set(names)) > 1:
            return tuple(dict.fromkeys(names))
    # Beside a he or a she they are the patients of a discussion.
    is_one = _AGED.search(text) or re.search(r"\bs?he\b", text, re.IGNORECASE)
    # Two may stand in a table of what is known, and three rows are of three patients.
    if not is_one and (_AGES_OF_A_GROUP.search(text) or len(_AGE_IN_A_ROW.findall(text)) > 2):
        return ("a group", "each of them")
    start = _LABEL_OF_PATIENT.match(text)
    # At the beginning alone: further on 'two sisters' are the patient's family.
    several = next(
        (m for p in (_SEVERAL, _PAIR) if (m := p.match(text, start.end() if start else 0))), None
    )
    return (several[0], "each of them") if several else ()


def patients_in_title(title: str) -> tuple[str, ...]:
    """The same of a title: 'Two cases of sarcoidosis'. What stands in its place where there is none
    is prose, in which 'two children' may be the patient's family."""
    is_prose = len(title) > _LONGEST_TITLE or re.search(r"[.;] ", title)
    several = None if is_prose and _AGED.search(title) else _SEVERAL.search(title)
    return (several[0], "each of them") if several else patients_in(title)


def patient_of_heading(title: str) -> str:
    """The patient whom a section's heading names: 'Case 2' of '2.2. Clinical case #2'; '' if none.

    >>> patient_of_heading("2.1. Case 1"), patient_of_heading("Case report")
    ('Case 1', '')
    """
    heading = _HEADING.match(title.strip())
    return _capitalised(heading[1]) if heading else ""


def parts_by_patient(text: str) -> dict[str, str]:
    """A summary in lines and bullets, parted: each patient's name, as the text has it, -> what is
    told of that patient or of all. Empty where fewer than two are told apart.

    A name opens a line, a sentence or an item of a list ('Case 1: fever. Case 2: chills.', 'P1
    pale; P2 well'); lines below it, deeper indented, are of the same patient. Sentences that only
    count the patients ('Three patients (P1, P2, P3).') belong to nobody.

    >>> parts_by_patient("Sex:\\n - P1: man\\n - P2: woman\\nSigns: P1 pale; P2 well")["P2"]
    'Sex:\\n - woman\\nSigns: well'
    """
    pieces: list[tuple[str, str]] = []  # the patient's name, '' for all, and a line
    owner, depth = "", -1
    for line in text.splitlines():
        # Two such names: one name in brackets behind a phrase may be anything.
        if len(_NAME_BEHIND.findall(line)) > 1:
            line = _NAME_BEHIND.sub(r" \g<name>: \g<told>;", line)
        indent = len(line) - len(line.lstrip())
        # A line that is indented less ends what its owner was told of.
        if owner and line.strip() and indent <= depth:
            owner, depth = "", -1
        opening = _OPENING_OF_LINE.match(line)[0]  # type: ignore[index]
        names = list(_PERSON_NAME.finditer(line, len(opening)))
        # A name inside a line, not at its beginning, is told of somebody: 'sister of P1'.
        if names and names[0].start() == len(opening):
            heading = len(names) == 1 and not line[names[0].end() :].strip(" *:")
            if heading:
                # A heading that is no bullet owns all lines up to the next one.
                owner = _capitalised(names[0]["name"])
                depth = indent if re.match(r"\s*[-*•]\s", line) else -1
                continue
            ends = [name.start() for name in names[1:]] + [len(line)]
            for name, end in zip(names, ends, strict=True):
                told = line[name.end() : end].strip(" ;*")
                pieces.append((_capitalised(name["name"]), opening + told))
        # 'Both patients recovered' belongs to nobody; without a count a line is of the owner.
        elif not names or not _COUNT.search(_PERSON_NAME.sub("", line)):
            pieces.append((owner, line))
    patients = list(dict.fromkeys(name for name, _ in pieces if name))
    if len(patients) < 2:
        return {}
    return {
        patient: "\n".join(line for name, line in pieces if name in ("", patient))
        for patient in patients
    }


def tells_of_newborn(text: str) -> bool:
    """Whether a sentence, a clause or a test's name is about a newborn: in a mother's history that
    is another patient. A grown child is family.

    >>> tells_of_newborn("The neonate weighed 2 kg"), tells_of_newborn("Her son has asthma")
    (True, False)
    """
    child = _CHILD_AS_SUBJECT.search(text)
    return bool(child and (child["newborn"] or _BIRTH.search(text)))


def is_grown(observation: str) -> bool:
    """Whether the patient is 12 years old or more, as the first line with an age says."""
    # A later age is a relative's, or the age at an earlier event.
    beginning = observation[:300]
    if short := _SHORT_AGE.match(beginning):
        return int(re.search(r"\d+", short[0])[0]) >= 12  # type: ignore[index]
    aged = _AGED.search(beginning)
    is_newborn = aged and re.search(NEWBORN, beginning[: aged.start()], re.IGNORECASE)
    if not aged or is_newborn or (aged["unit"] or aged["units"] or "year").casefold() != "year":
        return False
    years = aged["before"] or aged["behind"]
    return years.isdecimal() and int(years) >= 12


def _capitalised(name: str) -> str:
    """'Patient A' of 'patient  A'."""
    words = name.capitalize().split()
    # 'Patient A': `capitalize` has made a small letter of the patient's own.
    return " ".join([*words[:-1], words[-1].upper() if len(words[-1]) == 1 else words[-1]])


def animal_in(text: str) -> str:
    """The word that makes the patient of a text an animal: in the phrase that says who it is,
    never in the history ('bitten by a dog').

    >>> animal_in("A 6-year-old neutered Labrador coughs."), animal_in("A 40-year-old dog breeder")
    ('neutered', '')
    """
    # 'Bella, a spayed beagle': an owner's name for the patient says nothing.
    beginning = re.sub(r"\A[A-Z]\w+, (?=an?\b)", "", text[:400])
    aged = _AGED.search(beginning)
    start = aged.end() if aged else 0
    # The phrase behind the age alone: 'A 40-year-old man bitten by a dog'; before 'aged 40'.
    phrase = _END_OF_PHRASE.split(beginning[start : start + 80])[0]
    if aged and aged["behind"]:
        phrase = _END_OF_PHRASE.split(beginning[: aged.start()])[-1]
    animal, person = ANIMAL.search(phrase), PERSON.search(phrase)
    # Of a title only the noun that ends it: 'Cat eye syndrome', 'Cow's milk allergy'.
    if not aged and animal and not re.fullmatch(r"(?:neut|spay|cast|geld)\w+", animal[0], re.I):
        animal = re.search(rf"\b{phrase_regex(_ANIMALS)}\s*$", phrase, re.IGNORECASE)
    elif aged and not animal:
        animal = _CALF.fullmatch(phrase)
    if animal and not (person and person.start() < animal.start()):
        return animal[0]
    # 'Hanoverian mare': what ends like a person is the name of a breed.
    if animal and person and person[0][0].isupper() and person.end() + 1 == animal.start():
        return animal[0]
    # 'It' is said of a child too, and of a lesion: only where nobody is a person, a he or a she.
    is_noun = aged and not re.search("[A-Z]", phrase)  # 'a 67-year-old widow'
    is_human = is_noun or _SHORT_AGE.match(text) or PERSON.search(text) or _HE_OR_SHE.search(text)
    if not is_human and (neuter := _NEUTER.search(text)):
        return neuter[0].strip(" .")
    # 'A 7-month-old Standardbred filly': the names of kinds and breeds have no end. Beside a dog or
    # a horse he or she is its owner.
    near = text[:_FIRST_ENCOUNTER]
    is_person = person and person[0].islower()  # no 'Arabian'
    is_owner = is_person or (ANIMAL.search(near) and _HE_OR_SHE.search(near))
    if aged and not is_owner and (sign := _VETERINARY.search(near)):
        return sign[0]
    # Without an age it may be a title: 'Lymphoma in a dog'.
    in_title = None if aged else _IN_AN_ANIMAL.search(text[:150])
    return in_title[0] if in_title else ""


def animal_of_age(report: str) -> str:
    """The same of an article, by the phrase that tells the patient's age, wherever it stands."""
    # 'Aged 50' may be said of patients at large, in an introduction.
    aged = next((match for match in _AGED.finditer(report) if match["before"]), None)
    return animal_in(report[aged.start() :]) if aged else ""
