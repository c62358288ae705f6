"""The grammar of a line that tells a finding: its label, and its subject where that is a test."""

import re
from collections.abc import Iterator

from medaction.envs.categories import category_of, known_category
from medaction.envs.mentions import named_tests
from medaction.envs.naming import CULTURED, IMAGING, SOUGHT, TEST_OF_FINDING, canonical_of, profile
from medaction.words.markdown import without_markdown
from medaction.words.names import normalise
from medaction.words.phrases import IN_BRACKETS, phrase_regex

_LABELLED_LINE = re.compile(r"\*?(?P<label>[^:*]{1,150}?)\s*:\*?(?:\s+(?P<rest>.*))?")
# Verbs whose subject is a test; of a passive one ('was noted') it is what was found.
SHOWS = (
    r"(?:reveal|show|demonstrat|confirm|indicat|identif|suggest|detect|disclos|includ|display"
    r"|exhibit|exclud|verif|support|visuali[sz]|yield|rul(?=\w+ out))(?:ed|s|es|ied|ing)?|found"
    # A culture grew something; a mass grew to some size.
    r"|grew(?! (?:to|from|in|by|over|at|larger|\w+ly)\b)"
)
_STATE_VERBS = r"was|were|is|are|remained|returned|noted|reported|diagnosed"
_STATUSES = (
    "normal | negative | positive | elevated | raised | increased | decreased | low | reduced"
    " | abnormal | unremarkable"
)
_IMPRESSIONS = (
    "positive | negative | normal | unremarkable | inconclusive | consistent | suggestive"
)
_QUALITIES = phrase_regex(
    f"{_STATUSES} | {_IMPRESSIONS} | high | rose | fell | dropped | declined | corrected"
    " | significant | notable | remarkable | stable | prolonged",
    "",
)
# 'Nondiagnostic', 'unrevealing', 'undetectable': that it shows nothing, whatever the verb.
_UNTELLING = (
    r"(?:non-?|un|in)(?:diagnos|reveal|remark|conclus|suggest|inform|indicat|determin|detect"
    r"|identif|confirm|contribut|react|equivoc|specif)\w+"
)
_OUTCOMES = phrase_regex(
    f"{_STATUSES} | {_IMPRESSIONS} | high | stable | prolonged | suppressed | deranged"
    " | borderline",
    "",
)
_OUTCOME = rf"(?:\w+ly\s+)?(?:{_OUTCOMES}|{_UNTELLING})"
# 'No' and 'absence of' say of a test that it found nothing, as 'negative' does.
BEGINS_WITH_STATUS = re.compile(
    rf"(?:(?:{_OUTCOME}\s+)+|(?:absence of|lack of|no)\s+)", re.IGNORECASE
)
# Where a status is followed by the next one, the tests before it have their own.
STATUS_JOINT = re.compile(
    rf"(?:,\s+(?:and\s+|but\s+)?|(?<!\s)\s+(?:and|but|with)\s+)(?={BEGINS_WITH_STATUS.pattern})",
    re.IGNORECASE,
)
SHOWING_VERB = re.compile(rf"\s(?:\w+ly\s)?(?:{SHOWS})\b")
FINDING_VERB = re.compile(
    rf"\s(?:\w+ly\s)?(?:{SHOWS}|{_STATE_VERBS}|{phrase_regex(_IMPRESSIONS, '')})\b"
)
SHOWS_A_VALUE = re.compile(
    rf"\s(?:\w+ly\s)?(?:{SHOWS}|{_STATE_VERBS}|(?P<quality>{_QUALITIES}))\b"
    # Not the number of a name: '5-HIAA'.
    r"|\s(?P<value>(?=\(?[<>≤≥=~]?\s*\d)(?!\d+-[A-Za-z])|(?:half|twice|double)\b)"
)
_PASSIVE = re.compile(
    r"(?:\s\w+ly|\salso)?\s(?:\w+e[dn]|found|shown|made|done)\b|\W*$"
    r"|\s(?:in|on|by|at|with|as|during|from|near)\b"
)
_CHANGES = "decline | rise | increase | drop | decrease | fall | elevation | reduction"
_CHANGE_OF = re.compile(rf"{phrase_regex(_CHANGES, '')} (?:in|of) ", re.IGNORECASE)
# 'After treatment, MRI showed ...' is about the MRI.
OPENING_PHRASE = re.compile(
    r"(?:(?:after|before|on|at|during|in|by|following|upon) [^,]{3,60}|\w+ly), ", re.IGNORECASE
)
_NO_LAST_WORDS = phrase_regex(
    "within | of | in | from | to | at | over | for | until | after | late | later | early | a | an"
    " | the | not | both | all | each | did | does | failed | came back | could",
    "",
)
# 'A scan of plasma with a peak | at 619 nm', 'renal function initially'
_LOOSE_END = re.compile(
    rf"(?:(?:\s(?:{_NO_LAST_WORDS}|with an? [\w-]+|[–—=]+|[a-z]{{3,}}(?<!oma)ly))|\.{{2,}}){{1,4}}$"
)
HANGING_JOINT = re.compile(r"(?:,|(?<=\s)(?:and|or))\s*$")
ARTICLE = re.compile(r"\A(?:the|an?|his|her|their) ", re.IGNORECASE)
# Words that begin what a test has found, not a test's name.
_NO_NAME = frozenset(
    """
    a an no none not both all these this those the there it its he she patient other others another
    any some most many majority finding findings presence absence evidence
    """.split()  # noqa: SIM905
)
_STATUS = phrase_regex(_STATUSES, "")
IMPRESSION = phrase_regex(_IMPRESSIONS, "")
BARE_STATUS = re.compile(
    rf"(?:{_OUTCOME}\s+)*{_OUTCOME}(?: results?)?(?: for)?:?\s+", re.IGNORECASE
)
_SIGNS_OF_LABEL = (" – ", " — ", " = ", "... ", "; ")
"""What stands for a colon behind the name of a test: 'ECG – normal', 'Chest film; clear'."""
_CELL_END = re.compile(r"\s\|\s|\t+")
ABBREVIATION = re.compile(r"\s*\(([A-Z][A-Za-z0-9/-]{1,11})\)")
_STATUS_LIST = re.compile(
    rf"{_STATUS}\s+(?:for\s+)?(?P<first>[^:;()]+)"
    rf"|(?P<last>[^:;()]+?)\s+(?:(?:were|was|are|all|within)\s+)*{_STATUS}(?:\s+limits)?",
    re.IGNORECASE,
)
_NOUNS = (
    "test | testing | analysis | analyses | evaluation | examination | level | study | studies"
    " | markers | panel | screen | screening | antibody | antibodies | antigen | assay | culture"
    " | scraping | smear | staining | serology | serologies | function | ratio | sampling"
    " | lab | blood work | bloodwork | work up | workup | titer | scan | profile | exam"
    " | monitoring"
)
# 'Stains for acid-fast bacilli' goes on: only the singular ends a name.
TEST_NOUN = re.compile(rf"[^.;:,(]{{0,60}}?\b(?:{phrase_regex(_NOUNS)}|stain)\b", re.IGNORECASE)
_LIST_JOINT = re.compile(r",\s+(?:and\s+|or\s+)?|\s+(?:and|or|plus|&)\s+|(?<=\0)/(?=\0)")
_SEEN = ("imaging", "pathology", "procedure")
_MOST_WORDS = 6
"""Words of one test in a list: our choice; longer items are findings."""
_LINKS = "on | by | via | in | through | after | from | for | with | of | at | during | to"
# Where the noun phrase of a test begins in a sentence, and what ends it.
_BEFORE_PHRASE = re.compile(
    rf"[;:(]\s*|\b(?:{phrase_regex(_LINKS, '')}|{_QUALITIES}(?: results?)?|no|the|an?)\s+",
    re.IGNORECASE,
)
_BEHIND_PHRASE = re.compile(
    rf"[;:(]|\.(?:\s|$)|\s(?:{phrase_regex(_LINKS, '')}|{_STATUS}|{SHOWS}|{_STATE_VERBS}"
    # 'CT characterized the mass', not 'prolonged prothrombin time'.
    # Not the number of a name: '5-HIAA'.
    r"|\w+ed (?:the|an?|to|by|in|on|as|no))\b|\s(?!\d+-[A-Za-z])[<>≤≥=~]?\s*\d",
    re.IGNORECASE,
)

# The places of 'radiographs of the hip, both knees, and feet' behind the first.
_FURTHER_PLACES = re.compile(
    r"(?: [\w-]+)?(?:, (?:and )?(?:[\w-]+ )?[\w-]+)*,? and (?:[\w-]+ )?[\w-]+"
)
# 'No abnormality on renal scan'
TEST_BEHIND = re.compile(
    rf"\b(?:on|by|via|in) (?:an? |the )?(?P<test>{TEST_NOUN.pattern})\W*$", re.IGNORECASE
)
_SUBJECT_WITH_VERB = re.compile(rf"{TEST_NOUN.pattern}(?= \w+ed\b)", re.IGNORECASE)
_NO_VERBS = "of | for | in | with | and | or | at | to | on | from | by | was | were | is | are"
# 'Organism test came back pink', not 'test of liver function'.
_NOUN_THAT_GOES_ON = re.compile(
    rf"{TEST_NOUN.pattern}(?= (?!{phrase_regex(f'{_NO_VERBS} | {_NOUNS}', '')}\b)"
    r"(?-i:[a-z]{3,}))",
    re.IGNORECASE,
)


def listed_tests(result: str) -> tuple[str, ...]:
    """The tests that share one finding: 'Normal amino acids, lactate and organic acids' names
    three. Findings ('anemia') are none."""
    names: list[str] = []
    for clause in re.split(r"(?<=[.;])\s+", result):
        # A long row of spaces would be tried in every way.
        clause = " ".join(clause.split())
        # Brackets without digits hold names; with digits, values.
        clause = re.sub(
            r"\s*\(([^()\d]*)\)", r", \1", clause
        )  # 'serology (HIV, syphilis) negative'
        match = _STATUS_LIST.fullmatch(clause.strip(" .;"))
        items = (
            re.split(r",\s*(?:and\s+)?|\s+and\s+", match["first"] or match["last"]) if match else []
        )
        # One to four words each: anything longer is a finding, not a name.
        if len(items) > 1 and all(
            re.fullmatch(r"(?:[A-Za-z0-9α-ωβ/-]+\s?){1,4}", item) for item in items
        ):
            items = [BARE_STATUS.sub("", item.strip(), count=1) for item in items]
            names += [
                item
                for item in items
                if not re.fullmatch("Ig[AEGM]", item)
                and (canonical_of(item) is not None or TEST_NOUN.fullmatch(item))
            ]
    return tuple(names)


def with_specimen(names: tuple[str, ...]) -> Iterator[str]:
    """'Elevated urinary chloride and potassium': the specimen is said once for all."""
    specimen = profile(names[0]).specimen
    # Only laboratory values share it: 'CSF glucose and MRI' does not.
    for name in names:
        reading = profile(name)
        is_bare = not reading.kinds or (reading.kinds <= CULTURED and not reading.terms)
        shares = specimen not in (None, "blood") and category_of(name) == "laboratory"
        if shares and reading.specimen is None and is_bare:
            name = f"{names[0].split()[0]} {name}"
        yield name


def phrase_of(sentence: str, names: tuple[str, ...]) -> str:
    """The source's words around the tests that a sentence names first: 'EBV PCR' of 'Positive EBV
    PCR early on', 'CT and MRI' of 'No mass on CT and MRI'; the first name alone where no test ends
    the phrase ('potassium wasting'), and '' without a name."""
    place = re.search(rf"\b{re.escape(names[0])}(?!\w)", sentence) if names else None
    if place is None:
        return next(iter(names), "")
    asides = (m for m in IN_BRACKETS.finditer(sentence) if m.start() < place.start() < m.end())
    if (aside := next(asides, None)) is None:
        return _phrase_at(sentence, *place.span()) or names[0]
    # 'Imaging (X-ray and CT)' is of these two, 'imaging and marker (CEA) testing' of those outside.
    outer = _phrase_at(sentence, aside.start(), aside.end())
    return outer if tests_joined(outer)[1:] else phrase_of(aside[0].strip(" ()"), names)


def _phrase_at(sentence: str, start: int, end: int) -> str:
    """The noun phrase around a place, up to the last test of a list; '' where none ends it."""
    outline = _outline(sentence)
    begin = max((m.end() for m in _BEFORE_PHRASE.finditer(outline) if m.end() <= start), default=0)
    behind = _BEHIND_PHRASE.search(outline, end)
    phrase = HANGING_JOINT.sub("", sentence[begin : behind.start() if behind else None])
    phrase = _LOOSE_END.sub("", phrase.rstrip(" .,;"))
    joints = [*_LIST_JOINT.finditer(_outline(phrase))]
    ends = [*(joint.start() for joint in joints), len(phrase)]
    starts = [0, *(joint.end() for joint in joints)]
    items = [phrase[at:to] for at, to in zip(starts, ends, strict=True)]
    are_tests = [*map(names_a_test, items)]
    # 'Microdissection and mass spectrometry showed': the subject in whole.
    is_short = max(len(item.split()) for item in items) <= _MOST_WORDS
    if behind and FINDING_VERB.match(behind[0]) and is_short and any(are_tests):
        return phrase
    tests_end = (to for to, is_one in zip(ends, are_tests, strict=True) if is_one)
    return phrase[: max((to for to in tests_end if begin + to >= end), default=0)]


def _outline(text: str) -> str:
    """A text as long as `text`, in which no name of a test and no aside has an end inside."""
    text = IN_BRACKETS.sub(lambda aside: "_" * len(aside[0]), text)
    for name in named_tests(text):
        text = re.sub(rf"\b{re.escape(name)}(?!\w)", "\0" * len(name), text)
    return text


def tests_joined(phrase: str) -> tuple[str, ...]:
    """Each test of 'lactate, thyroid function and brain CT'; the phrase in one piece where a part
    is none by itself. A place or a specimen shares the noun of the next.

    >>> tests_joined("CT of head and neck, and EMG"), tests_joined("CRP, blood and urine cultures")
    (('CT of head and neck', 'EMG'), ('CRP', 'blood and urine cultures'))
    """
    items, start = [], 0
    for joint in _LIST_JOINT.finditer(_outline(phrase)):
        reading = profile(item := phrase[start : joint.start()])
        is_place = (reading.regions or reading.specimen) and not reading.terms
        # An item that only grows would be read anew at each of a thousand joints.
        if not is_place or len(item.split()) > 2 * _MOST_WORDS or names_a_test(item):
            items.append(item)
            start = joint.end()
    items.append(phrase[start:])
    # 'Renal, and liver function tests' are renal and liver function tests.
    items = [item.replace(", and ", " and ") for item in items]
    # What a stain shows of calcitonin is no amount in the blood, and a ratio is of two.
    is_shared = "stain" in profile(items[-1]).kinds and not all(map(_is_kind, items))
    # 'Histological and immunohistochemical examination': the noun is that of both.
    is_shared |= any(canonical_of(item) is None and _is_adjective(item) for item in items)
    is_shared |= phrase.endswith(" ratio") and len(items) == 2
    return tuple(items) if all(map(names_a_test, items)) and not is_shared else (phrase,)


def _is_kind(item: str) -> bool:
    """Whether an item says how something is looked at, not what is looked for."""
    return known_category(item) is not None or bool(profile(item).kinds)


def _is_adjective(item: str) -> bool:
    return " " not in item and item.endswith(("ic", "al"))


def names_a_test(item: str) -> bool:
    """Whether an item of a list is a test by its name, by its last noun, by a code, or by a finding
    that only a laboratory can tell."""
    name = IN_BRACKETS.sub("", item)
    ends = any(name.endswith(test) for test in named_tests(name))
    if not 0 < len(name.split()) <= _MOST_WORDS:
        return named_tests(name) == (name,)
    has_code = re.fullmatch(r"(?=.*[A-Z])\w[\w-]*[A-Z\d]|[A-Z]{2}[\w-]*\d[\w-]* [a-z]+", name)
    first, _, noun = name.rpartition(" ")
    reading = profile(name)
    return (
        bool(ends or has_code or TEST_NOUN.fullmatch(name))
        or normalise(noun) in TEST_OF_FINDING
        # 'Fat pad aspiration'; 'growth prompted imaging' is a sentence, one word may be a time.
        or (known_category(noun) in _SEEN and bool(first) and not re.search(r"ed\b", first))
        or bool(profile(noun).kinds & SOUGHT)
        or bool(reading.kinds & IMAGING and reading.regions and not reading.terms)  # 'MRI brain'
        or name.casefold() == "imaging"
        or canonical_of(name) is not None
    )


def subject_of(sentence: str, names: tuple[str, ...], begins: bool) -> str:
    """What a finding is about, when that is a test: 'Renal biopsy' of 'Renal biopsy showed ...',
    'autoimmune markers' of 'Negative ...'.

    Where the sentence `begins` a bullet, it is whatever shows something, and whatever was measured
    when the sentence names no test that is known.
    """
    if opening := OPENING_PHRASE.match(sentence):
        sentence = sentence[opening.end() :]
    sentence = _CHANGE_OF.sub("", sentence, count=1)
    # 'The' before a finding is common: it needs a noun of a test.
    if article := ARTICLE.match(sentence):  # 'the aldosterone-to-renin ratio came out at 92'
        noun = TEST_NOUN.match(sentence[article.end() :])
        if begins and not names and noun:
            return noun[0]
    if status := BARE_STATUS.match(sentence):
        return _subject_of_status(sentence[status.end() :], names, begins)
    if begins and not names and (name := _known_name(sentence)):
        return name
    # Before the first comma: a later clause has its own subject.
    # In brackets a verb has another subject: 'X/Y ratio of 11 (deficiency ruled out)'.
    outside = IN_BRACKETS.sub(lambda aside: "." * len(aside[0]), sentence)
    shows = SHOWING_VERB.search(outside.partition(", ")[0])
    verb = shows or SHOWS_A_VALUE.search(sentence)
    if verb is None:
        bare = ABBREVIATION.sub("", sentence)
        noun = _NOUN_THAT_GOES_ON.match(bare) if begins and not names else None
        return noun[0] if noun and not _begins_a_finding(sentence) else ""
    # Brackets and loose prepositions at its end are no part of a name.
    before = _LOOSE_END.sub("", ABBREVIATION.sub("", sentence[: verb.start()]))
    # 'Endomysial antibody was | detected': of the test; 'a mass was | detected' is what was found.
    is_passive = before.endswith((" was", " were"))
    before = before.removesuffix(" was").removesuffix(" were")
    # 'Radiographs of the hip, knees, and feet' are of all of them.
    if names and " of " in names[0] and _FURTHER_PLACES.fullmatch(before.removeprefix(names[0])):
        return before
    # Longer than any test's name: only its noun is taken.
    if len(before) > 60 and not names and (noun := TEST_NOUN.match(before)):
        before = noun[0]
    # An open bracket: the verb stands inside an aside. 'Stable ferritin and | elevated zinc' is cut
    # inside a list.
    is_inside = "(" in before and (names or before.count("(") > before.count(")"))
    if len(before) > 60 or is_inside or HANGING_JOINT.search(before):
        return ""
    is_test = named_tests(before) or canonical_of(before) is not None
    # 'Hepatitis A, B and C serologies': the noun at its end is that of all of them.
    if is_test or (not names and TEST_NOUN.fullmatch(before.replace(",", ""))):
        name = ARTICLE.sub("", before, count=1)
        return name[0].upper() + name[1:] if name != before else name
    if shows and known_category(before):
        return before
    # 'A mass was noted': the subject is what was found, not the test.
    is_participle = verb[0].rpartition(" ")[2] in ("noted", "reported", "diagnosed")
    passive = (
        is_passive
        or is_participle
        or (not verb.groupdict().get("quality") and _PASSIVE.match(sentence[verb.end() :]))
    )
    if begins and not names and (noun := _SUBJECT_WITH_VERB.match(before)):
        return noun[0]  # 'venous sampling lateralised to the right, ratio 9:1'
    # In the middle of a bullet the subject may be a part of the test before.
    if not begins or passive or "," in before or _begins_a_finding(before) or (names and not shows):
        return ""
    return before


def tests_of_status(clause: str) -> tuple[str, ...]:
    """The tests of a clause that is a status with what it is said of: 'normal fecal elastase', 'no
    mutations in JAK2 and CALR'; none where anything of it is no test."""
    status = BEGINS_WITH_STATUS.match(clause)
    if status is None:
        return ()
    following = clause[status.end() :]
    behind = _BEHIND_PHRASE.search(_outline(following))
    items = tests_joined(following[: behind.start() if behind else None].strip(" ."))
    is_test = (names_a_test(item) or profile(item).specimen for item in items)
    return items if all(is_test) else ()


def without_quality(name: str) -> str:
    """A test's name without what was found of it and when: 'prolonged coagulation profile', 'renal
    function initially'."""
    bare = name
    if quality := BEGINS_WITH_STATUS.match(bare):
        bare = bare[quality.end() :]
    bare = _LOOSE_END.sub("", bare)
    return bare if names_a_test(bare) and named_tests(name) != (name,) else name


def begins_with_noun(label: str) -> bool:
    """Whether a label is what a noun of a test ends, with what it is against: 'Prick test to
    Aspergillus'."""
    return TEST_NOUN.match(label) is not None


def _known_name(sentence: str) -> str:
    """The test of two to four words that a sentence begins with, as orders name it: 'Lupus
    anticoagulant present twice'. One word may be a finding: 'Calcium deposits'."""
    words = re.match(r"(?:[\w-]+ ){0,4}", sentence)[0].split()  # type: ignore[index]
    names = (" ".join(words[:length]) for length in range(len(words), 1, -1))
    return next((name for name in names if canonical_of(name) is not None), "")


def _subject_of_status(following: str, names: tuple[str, ...], begins: bool) -> str:
    """What stands behind 'Negative ...': up to the noun of a test, or to a number in brackets."""
    # The noun alone is no name: 'tests for infectious causes'.
    match = (
        None
        if names
        else re.match(r"tests? (?:for|of|against) [^.;:,(]{3,60}", following, re.IGNORECASE)
    )
    match = (
        match
        or TEST_NOUN.match(following)
        or re.match(r"[^.;:,()]{2,40}?(?= \([^()]*\d)", following)
    )
    if match is None and begins and not names:
        end = r"[.;:(]|\s(?:except|in|on|with)\b|\s\d|$"
        match = re.match(rf"[^.;:()]{{2,60}}?(?={end})", following)
    subject = match[0].strip() if match else ""
    return subject if " " in subject or not names else ""


def _begins_a_finding(words: str) -> bool:
    return words.split(maxsplit=1)[0].casefold() in _NO_NAME


def label_and_rest(text: str) -> tuple[str, str]:
    """'**Blood tests**: Hb 9 g/dL' -> ('Blood tests', 'Hb 9 g/dL'), and so of a table's row 'Hb | 9
    | low'; a bullet without a label -> ('', text)."""
    cells = [cell.strip() for cell in _CELL_END.split(text.strip("| ")) if cell.strip()]
    if len(cells) > 1:
        return without_markdown(cells[0]).strip(": "), text.partition(cells[0])[2].strip(":| \t")
    for sign in _SIGNS_OF_LABEL:
        name, _, rest = text.replace("**", "").partition(sign)
        # 'ESR; CRP 40' lists two tests.
        is_list = rest and sign == "; " and (named_tests(name) != (name,) or named_tests(rest))
        if rest and not is_list and names_a_test(name):
            return name, rest.strip()
    match = _LABELLED_LINE.fullmatch(text.replace("**", ""))
    # A stop before the colon: the label would be a whole sentence.
    if match is None or re.search(r"[.;]\s", match["label"]) or _is_value(match):
        return "", text
    return without_markdown(match["label"]).strip(), (match["rest"] or "").strip()


def _is_value(match: re.Match[str]) -> bool:
    """Whether the colon belongs to a value inside a sentence ('Elevated enzymes (AST: 90'), so that
    there is no label."""
    if match["label"].lower() in ("positive", "negative", "normal", "abnormal"):
        return True
    # More opened than closed: the colon stands in brackets.
    return match["label"].count("(") > match["label"].count(")") or bool(
        FINDING_VERB.search(match["label"])
    )
