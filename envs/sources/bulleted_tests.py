"""The tests of a summary's bullets: each with its result, and why a bullet is none."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from medaction.envs.categories import category_of, known_category
from medaction.envs.documented import is_documented
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    CONDITIONS,
    IMAGING,
    KINDS,
    SOUGHT,
    TEST_OF_FINDING,
    canonical_of,
    fluids_in,
    profile,
)
from medaction.envs.records import DocumentedTest
from medaction.envs.results_told import result_told
from medaction.envs.sources.finding_sentences import (
    ABBREVIATION,
    ARTICLE,
    BARE_STATUS,
    FINDING_VERB,
    HANGING_JOINT,
    IMPRESSION,
    OPENING_PHRASE,
    SHOWING_VERB,
    STATUS_JOINT,
    TEST_BEHIND,
    TEST_NOUN,
    begins_with_noun,
    label_and_rest,
    listed_tests,
    phrase_of,
    subject_of,
    tests_joined,
    tests_of_status,
    with_specimen,
    without_quality,
)
from medaction.envs.sources.labels import (
    ATTRIBUTES,
    GENERAL_LABS,
    LATER,
    LATER_COURSE,
    TIME,
    at_time,
    gathers_tests,
    goes_on_above,
    is_label_of_test,
    tells_when,
    why_no_test,
)
from medaction.envs.sources.value_rows import (
    ITEM_END,
    RESULT_END,
    analytes_of,
    may_be_of_fluid,
    row_of_values,
    shares_status,
    value_of_item,
)
from medaction.words.markdown import without_markdown
from medaction.words.names import normalise
from medaction.words.negation import DENIAL, is_undone
from medaction.words.phrases import IN_BRACKETS, phrase_pattern, phrase_regex
from medaction.words.sentences import split_outside_brackets
from medaction.words.tests import PANELS

HEADING = "Ancillary tests"
"""What a result is called that names no test and has no entry above it."""
BULLET_LINE = re.compile(r"^(?P<indent>\s*)(?:[-*•]|\d+[.)])\s+(?P<text>.*)$")
_JOINED_CLAUSE = re.compile(r",\s+(?:and|but|while|whereas)\s+")
# 'Its culture' goes on with what was taken.
_JOINED_WITHOUT_COMMA = re.compile(r"\s+(?:but|while|whereas|and(?! its\b| their\b))\s+")
# 'Ultrasound showed a mass, confirmed by CT showing a cyst'
_BORNE_OUT_BY = re.compile(r",\s+(?:\w+ )?\w+ed (?:by|on|via)\s+(?:an?\s+|the\s+)?")
_FINDING_OF_ROW = re.compile(r"(?:[\w-]+ ){0,2}(?P<finding>\w+) \((?P<row>[^()]+)")
# 'Glucose: 5 g/L; urine dipstick: positive': a second label on the line of the first.
# Not inside brackets: '(IgM; IgG: ...)' is one result.
_NEXT_LABEL = re.compile(r"[;.]\s+(?=(?:\d+-)?[A-Za-z][\w ()/-]{2,50}:\s)(?![^()]*\))")
_CODE_AND_VALUE = re.compile(r"(?P<code>[A-Z]{2,}) \d")
"""'BP 110/70 mmHg'"""
_INVESTIGATIONS = re.compile(
    rf"(?:{phrase_regex(ATTRIBUTES, '')} )*(?:tests?|testing|investigations?|work-?up|imaging)",
    re.I,
)
_OPERATION = phrase_pattern(
    "surg* | excision | resection | *ectomy | graft | implant* | transplant*"
)
_BEGUN = re.compile(rf"{LATER_COURSE.pattern} \w+ed\b", re.IGNORECASE)  # 'therapy initiated'


@dataclass(slots=True)
class Bullet:
    """One bullet of the summary with the bullets nested below it."""

    text: str
    indent: int
    children: list["Bullet"] = field(default_factory=list)
    begins: bool = True
    """False: a sentence that follows another one on the heading's own line."""


@dataclass(frozen=True, slots=True)
class Remark:
    """A statement that names no test: it goes on with the entry above, but where `no_test` says
    why it is none."""

    text: str
    no_test: str = ""


_BulletLine = DocumentedTest | Remark


def tree_of_bullets(lines: list[str]) -> list[Bullet]:
    """Bullets by their indentation; a line without a bullet goes on with the bullet above it."""
    root = Bullet("", -1)
    open_nodes = [root]
    for line in lines:
        bullet = BULLET_LINE.match(line)
        # A bullet that was wrapped by hand.
        if bullet is None and len(open_nodes) > 1:
            open_nodes[-1].text += " " + line.strip()
            continue
        node = (
            Bullet(bullet["text"].strip(), len(bullet["indent"]))
            if bullet
            # Without a bullet and without one above it: a line of a summary in prose.
            else Bullet(line.strip(), 0)
        )
        while open_nodes[-1].indent >= node.indent:
            open_nodes.pop()
        open_nodes[-1].children.append(node)
        open_nodes.append(node)
    return root.children


def entries_of_bullet(node: Bullet, container: str = "") -> Iterator[_BulletLine]:
    """The tests of one bullet and of the bullets below it. What names none is a remark."""
    label, rest = label_and_rest(node.text)
    # A heading without a colon: 'Imaging studies' with bullets below.
    if node.children and not label and _is_heading(node.text):
        label, rest = without_markdown(node.text), ""
    knows_label = is_label_of_test(label)
    below = (text for child in node.children for text in _texts_of_bullet(child))
    more = "\n".join(without_markdown(text) for text in (rest, *below) if text)
    # From the surest to the least: course, time, more of the above, groups, a test with findings.
    no_test = "" if gathers_tests(label) else why_no_test(label, node.text)
    if no_test:
        yield from (Remark(without_markdown(text), no_test) for text in _texts_of_bullet(node))
    elif tells_when(label):
        lines = (line for child in node.children for line in entries_of_bullet(child, container))
        # 'Day 3: Na 130, K 4.1' has values on the label's own line.
        analytes = [_test_of_analyte(*part, container) for part in analytes_of(rest)]
        of_label = analytes or (_prose(rest, container) if rest else ())
        yield from _dated(label, (*of_label, *lines))
    # 'No metastases: ...' goes on with the entry above, but not where a test is named below.
    elif label and not knows_label and goes_on_above(label) and not named_tests(more):
        yield Remark(f"{label}: {more}")
    # A group: its bullets are tests, and its own text a further one.
    elif node.children and (not rest or gathers_tests(label)) and _are_tests(node):
        heading = label or container
        lines = (line for child in node.children for line in entries_of_bullet(child, heading))
        # 'Further testing/management': what is no test is the other.
        if LATER_COURSE.search(label):
            lines = (_of_course(line) for line in lines)
        listed = with_remarks((*(_prose(rest, heading) if rest else ()), *lines), label)
        yield from _dated(label, listed)
    # Bullets below a test are its findings: one entry, their lines joined.
    elif node.children:
        if label:
            yield from _tests_of_label(label, more, container)
        else:  # 'Cervical spine CT revealed:' and its findings below
            # The heading's words stand in the result as the source has them.
            text = more.replace(rest, without_markdown(node.text), 1)
            for line in _sentence(node.text.rstrip(": "), container, begins=True):
                if isinstance(line, DocumentedTest):
                    yield replace(line, result=text)
                else:
                    yield Remark(text)
    elif label and not gathers_tests(label) and not _heads_prose(label, rest):
        yield from _tests_of_label(label, rest, container)
    # 'Imaging: CT showed ...': the label is no test, the sentence behind it names one.
    elif label:
        says_nothing = gathers_tests(label) or known_category(label) is not None
        text = without_markdown(rest)
        for line in with_remarks(_prose(rest, container or label), label):
            if isinstance(line, DocumentedTest) and line.result == text and not says_nothing:
                # 'Standing: renin 9' is no plain renin.
                names = _once((*line.aliases, label), line.name)
                line = replace(line, result=f"{label}: {text}", aliases=names)
            yield line
    else:
        yield from _prose(node.text, container, node.begins)


def _heads_prose(label: str, text: str) -> bool:
    """Whether sentences behind a label that names no test are each about a test of their own:
    'Neurophysiology: EMG showed denervation. Evoked potentials were delayed.', 'Of note: Ammonia
    142 µmol/L'"""
    sentences = split_outside_brackets(RESULT_END, text)
    # 'Radiological: Normal MRI brain; chest X-ray showed ...' has tests that say more than it.
    # Laboratory values stand under their heading together.
    says_more = not named_tests(label) and known_category(label) != "laboratory"
    if says_more and not TIME.search(label) and _are_of_known_tests(sentences):
        return True
    if len(sentences) > 1:
        return not is_label_of_test(label) and all(map(_is_of_test, sentences))
    reading = profile(label)
    # 'Laboratory: Blood count was normal' is of that one test.
    if GENERAL_LABS.fullmatch(label) and len(split_outside_brackets(ITEM_END, text)) == 1:
        return len(named_tests(text)) == 1 and _begins_with_test(text)
    # 'Saline infusion test: aldosterone 22', 'Left adrenal vein: cortisol 800' are no plain ones.
    is_test = is_label_of_test(label) or begins_with_noun(label) or reading.regions
    if is_test or label_and_rest(text)[0] or reading.terms & CONDITIONS:
        return False
    return _begins_with_test(text)


def _begins_with_test(clause: str) -> bool:
    """Whether the first words of a clause name a test that is known, and the others what it
    found."""
    if item := value_of_item(clause):
        return bool(item["value"]) and canonical_of(item["name"]) is not None
    name = next(iter(named_tests(clause)), clause)
    # 'CT, MRI and EUS failed' lists tests.
    says_more = re.match(r":?\s(?!and\b|or\b)", clause[len(name) :])
    return clause.startswith(name) and bool(says_more) and is_documented(clause)


def _is_of_test(clause: str) -> bool:
    """Whether a test is what a clause tells of, and found, shown or measured."""
    names = named_tests(clause)
    if not FINDING_VERB.search(clause):
        return False
    subject = subject_of(clause, names, begins=True)
    # 'Ziehl-Neelsen stain' is in no table, and a test by its noun.
    if names:
        return names[0].casefold() in subject.casefold()
    return bool(TEST_NOUN.fullmatch(subject))


def _are_of_known_tests(sentences: list[str]) -> bool:
    """Whether each clause begins with tests that are known and tells of no others: 'Normal MRI
    brain', and of several 'chest X-ray showed an effusion'."""
    clauses = [clause for sentence in sentences for clause in _clauses_of_tests(sentence)]
    for clause in clauses:
        names = named_tests(IN_BRACKETS.sub("", clause))
        items = tests_of_status(clause)
        behind = IN_BRACKETS.sub("", clause.rpartition(items[-1])[2]) if items else ""
        is_status = items and all(map(named_tests, items)) and ", " not in behind
        is_subject = len(clauses) > 1 and len(names) == 1 and clause.startswith(names[0])
        if not (is_status or (not items and is_subject and _is_of_test(clause))):
            return False
    return True


def _of_course(line: _BulletLine) -> _BulletLine:
    if isinstance(line, DocumentedTest):
        return line
    return replace(line, no_test=line.no_test or "tells of treatment or its outcome")


def _is_heading(text: str) -> bool:
    """Whether a bullet with others below it is their heading, without a colon: it says nothing."""
    words = IN_BRACKETS.sub("", text).split()
    return (
        # Longer ones, or those with a number or a verb, tell a result themselves.
        len(words) <= 4 and not re.search(r"\d", " ".join(words)) and not FINDING_VERB.search(text)
    )


def _dated(label: str, lines: Iterable[_BulletLine]) -> Iterator[_BulletLine]:
    """What stands under a label that tells when."""
    for line in with_remarks(lines, HEADING):
        told_when = LATER.match(label) or tells_when(label)
        yield at_time(line, label) if told_when and isinstance(line, DocumentedTest) else line


def with_remarks(lines: Iterable[_BulletLine], name: str) -> Iterator[_BulletLine]:
    """The lines with each remark added to the entry above; above any it is an entry itself, called
    `name`."""
    entry: DocumentedTest | None = None
    for line in lines:
        # A remark belongs to the entry above it, so that entry waits for what follows.
        if isinstance(line, DocumentedTest):
            if entry is not None:
                yield entry
            entry = line
        # Without a name for it, or with a reason against it, it stays a remark.
        elif line.no_test or not name:
            yield line
        elif entry is None or _was_left_undone(entry.result):
            if entry is not None:
                yield entry
            entry = DocumentedTest(name, category_of(name), line.text)
        # 'Anti-Mi-2 negative' is no more of a CK, while 'CD20 positive' is more of a biopsy.
        elif _is_analyte(entry) and (value := value_of_item(line.text)) and value["value"]:
            yield entry
            entry = _test_of_analyte(value["name"], line.text, name)
        else:
            entry = replace(entry, result=f"{entry.result}\n{line.text}")
    if entry is not None:
        yield entry


def _was_left_undone(result: str) -> bool:
    """Whether an entry says that there is no result, which no further line can tell more of."""
    is_denied = is_undone(result) or DENIAL.match(result)
    return bool(is_denied) and not is_documented(result)


def _is_analyte(entry: DocumentedTest) -> bool:
    """Whether an entry is of one analyte of the blood: 'mesothelial cells 5 %' behind a 'pleural
    fluid analysis' is more of it."""
    reading = profile(entry.name)
    is_one = reading.canonical not in PANELS and (reading.canonical or value_of_item(entry.result))
    return entry.category == "laboratory" and reading.specimen in (None, "blood") and bool(is_one)


def _prose(text: str, container: str, begins: bool = True) -> Iterator[_BulletLine]:
    """The tests of running text, sentence by sentence."""
    for sentence in split_outside_brackets(RESULT_END, text):
        for clause in _clauses_of_tests(sentence):
            yield from _sentence(clause, container, begins)
            begins = False


def _clauses_of_tests(sentence: str) -> list[str]:
    """The clauses of 'ECG showed ST depression, and cardiac enzymes were raised', where each has a
    test for its subject; else the sentence."""
    for joint in (_JOINED_CLAUSE, _JOINED_WITHOUT_COMMA, _BORNE_OUT_BY):
        clauses = split_outside_brackets(joint, sentence)
        if len(clauses) > 1 and all(map(_is_of_test, clauses)):
            return clauses
    clauses = split_outside_brackets(STATUS_JOINT, sentence)
    if len(clauses) > 1 and not row_of_values(sentence) and all(map(tests_of_status, clauses)):
        return clauses
    verb = SHOWING_VERB.search(sentence)
    before, _, subject = sentence[: verb.start() if verb else 0].rpartition(", ")
    is_named = named_tests(subject) == (subject,) and not named_tests(before)
    # 'Acylcarnitines as in MADD, biopsy showing fat': what is before is none of the biopsy's.
    if before and is_named and is_documented(before) and not OPENING_PHRASE.match(sentence):
        return [before, sentence[len(before) + 2 :]]
    clauses = split_outside_brackets(ITEM_END, sentence)
    names = [name for clause in clauses[1:] for name in named_tests(clause)]
    # 'Pleural fluid glucose 20, LDH 400': of that fluid.
    in_fluid = {profile(name).specimen for name in named_tests(clauses[0])} - {None, "blood"}
    is_apart = names and not (in_fluid and any(map(may_be_of_fluid, names)))
    if is_apart and not row_of_values(sentence) and all(map(_is_result_alone, clauses)):
        return clauses
    return [sentence]


def _is_result_alone(clause: str) -> bool:
    """Whether a clause without a verb names a test and what it found: 'fibrillation on ECG', 'IGRA
    negative', 'normal spirometry', 'mild anemia (Hb 10)'."""
    if _CODE_AND_VALUE.match(clause):
        return True
    names = named_tests(clause)
    if SHOWING_VERB.search(clause) or not (names or begins_with_noun(clause)):
        return False
    # 'Hepatitis screen negative, HIV test pending': neither's result is the other's.
    if is_undone(clause):
        return True
    by_test = any(re.search(rf"\w (?:on|by|via) .*{re.escape(n)}\W*$", clause) for n in names)
    has_status = BARE_STATUS.match(clause) or re.search(rf" {IMPRESSION}\W*$", clause)
    has_value = re.search(r"\(.*\d.*\)", clause) or value_of_item(clause)
    return bool(by_test or has_status or has_value)


def _are_tests(node: Bullet) -> bool:
    """Whether the bullets below are tests of their own (all name one), or the findings of the test
    above: 'Uterus: ...' below 'Histology' is a finding, 'Nance analysis: ...' below 'Further
    studies' a test."""
    label = label_and_rest(node.text)[0] or without_markdown(node.text)
    labels = [label_and_rest(child.text)[0] for child in node.children]
    below_test = profile(label).kinds - {"imaging"}
    # Below a kind of test a label must be a test's; below a heading any label will do.
    named = [
        bool(is_label_of_test(below) if below_test else below) or bool(named_tests(child.text))
        for below, child in zip(labels, node.children, strict=True)
    ]
    # Below a group one test is enough: the others may be named by analytes that no table knows.
    return all(named) if not gathers_tests(label) else any(named)


def _texts_of_bullet(node: Bullet) -> Iterator[str]:
    yield node.text
    for child in node.children:
        yield from _texts_of_bullet(child)


def _tests_of_label(label: str, result: str, container: str) -> Iterator[DocumentedTest]:
    name = without_markdown(label).strip()
    text = without_markdown(result).strip()
    # 'Low cortisol: 4.9 ug/dL' is of a cortisol.
    status = BARE_STATUS.match(name)
    bare = name[status.end() :] if status else ""
    if bare and text and "\n" not in text and (canonical_of(bare) or named_tests(bare)):
        name, text = bare, f"{name}: {text}"
    result, *further = _NEXT_LABEL.split(text)
    labels = [label_and_rest(line)[0] for line in further]
    one_line = "\n" not in "".join(further) and not label_and_rest(result)[0]
    # 'Urinalysis: Protein 3+. Glucose: negative': that glucose is of the urine.
    in_fluid = profile(name).specimen not in (None, "blood") and any(map(may_be_of_fluid, labels))
    # All labels must be tests: else a later one may be a part of the first's result.
    are_tests = all(
        is_label_of_test(label) or canonical_of(label) is not None or begins_with_noun(label)
        for label in (name, *labels)
    )
    if are_tests and one_line and not in_fluid:
        for line in further:
            yield from _tests_of_label(*label_and_rest(line), container)
    else:
        if tests := _at_times(name, [result, *further], container):
            yield from tests
            return
        result = text
    if not name or not result:
        return
    category = category_of(name, container)
    # '... Echocardiography revealed hypertrophy.' at the end of a laboratory's results is its own.
    if appended := _of_other_tests(name, category, result):
        end = len(result)
        for last in reversed(appended):
            end = result.rindex(last, 0, end)
        own = HANGING_JOINT.sub("", result[:end].strip(" ;\n"))
        yield from _tests_of_label(name, own, container)
        lines = (_sentence(last, container, begins=False) for last in appended)
        sentence = split_outside_brackets(RESULT_END, result)[-1]
        for test in itertools.chain.from_iterable(lines):
            if isinstance(test, DocumentedTest):
                # 'Uptake in the left breast, biopsy was benign': of what the sentence tells.
                reading = profile(test.name)
                is_bare = not (reading.regions or reading.terms) and test.result in sentence
                yield replace(test, result=sentence) if is_bare and reading.kinds else test
        return
    # 'Laboratory tests: Na 130, K 4.1' is one test for each analyte, which are ordered so.
    if category == "laboratory" and GENERAL_LABS.fullmatch(name) and (parts := analytes_of(result)):
        yield from (_test_of_analyte(*part, name) for part in parts)
        return
    listed = (
        listed_tests(result)
        # In blood alone: the parts of a urinalysis are no tests by their bare names.
        if category == "laboratory" and profile(name).specimen in (None, "blood")
        else ()
    )
    # 'EEG not done' in a result names a test that has none.
    done = " ".join(clause for clause in re.split(r"(?<=[.;])\s+", result) if not is_undone(clause))
    others = (*_others(named_tests(f"{name}. {done}"), name), *listed)
    yield DocumentedTest(name, category, result, _once(others, name))


def _of_other_tests(name: str, category: str, result: str) -> list[str]:
    """The sentences at the end of a test's result that tell of another one, and so the clauses at
    the end that begin with its name: ', chest X-ray without infiltrates'."""
    pieces = split_outside_brackets(RESULT_END, result)
    first, *clauses = split_outside_brackets(ITEM_END, pieces[-1])
    # 'Peripheral smear, biopsy and CT normal' lists tests.
    last = [first, *clauses] if all(map(is_documented, (first, *clauses))) else [pieces[-1]]
    later = [*pieces[:-1], *last][1:]
    return [*itertools.takewhile(partial(_is_of_other, name, category), reversed(later))][::-1]


def _is_of_other(name: str, category: str, clause: str) -> bool:
    """Whether a clause tells of a test that can be no part of the one called `name`: of another
    category, modality or specimen. An analyte may be measured in whatever was taken, but not in a
    scan."""
    names = named_tests(clause)
    label = label_and_rest(clause)[0]
    subject = label if is_label_of_test(label) else subject_of(clause, names, begins=bool(names))
    if not subject and _begins_with_test(clause):
        subject = next(iter(names), "")
    if not subject:
        phrase = phrase_of(clause, names)
        is_behind = re.search(rf" on (?:an? |the )?{re.escape(phrase)}\W*$", clause)
        if is_behind and profile(phrase).kinds & IMAGING:
            subject = phrase  # 'no vegetation on transesophageal echo'
    own, other = profile(name), profile(subject)
    # A 'peripheral smear' is of blood, whatever was taken for the pathology before it.
    is_of_blood = own.specimen != "blood" and "blood" in fluids_in(other.canonical or "")
    category_of_other = known_category(subject) or category_of(subject)
    is_scan = category in ("imaging", "physiologic")
    is_known = (
        bool(GENERAL_LABS.fullmatch(subject))
        or (bool(own.kinds) and is_of_blood)
        or known_category(subject) not in (None, "laboratory")
        # The ejection fraction is a part of the echocardiogram.
        or (is_scan and canonical_of(subject) is not None and own.regions.isdisjoint(other.regions))
    )
    # 'PCR was positive' behind a cytology is of what was taken for it.
    is_taken = own.specimen not in (None, "blood") or category in ("pathology", "procedure")
    is_made = other.kinds & KINDS - (SOUGHT if is_taken and not other.specimen else frozenset())
    if not (is_known or is_made or other.specimen):
        return False
    modalities = own.kinds & IMAGING, other.kinds & IMAGING
    if all(modalities):
        ways = [{state for state in side.states if state[0] == "way"} for side in (own, other)]
        is_way = all(ways) and ways[0].isdisjoint(ways[1])
        return is_way or modalities[0].isdisjoint(modalities[1])
    specimens = other.specimen or "blood", own.specimen or "blood"
    return category_of_other != category or specimens[0] != specimens[1]


def _at_times(name: str, parts: list[str], container: str) -> list[DocumentedTest]:
    """The tests of 'Calcium: Day 1: 3.6; Day 7: 2.6; Reference: 2.1-2.6', one a time with what is
    said of all; none where fewer than two labels are times."""
    labelled = [label_and_rest(part) for part in parts]
    times = [label for label, _ in labelled if tells_when(label) and TIME.search(label)]
    of_all = [part for part, (label, _) in zip(parts, labelled, strict=True) if label not in times]
    # A reference alone is no result.
    return [
        at_time(test, label)
        for label, rest in labelled
        if label in times and len(times) > 1
        for test in _tests_of_label(
            name, "\n".join([rest, *(of_all if is_documented(rest) else ())]), container
        )
    ]


def _test_of_analyte(name: str, value: str, container: str) -> DocumentedTest:
    return DocumentedTest(name, category_of(name, container), value)


def _once(names: tuple[str, ...], own: str) -> tuple[str, ...]:
    """Each name once, without the test's own."""
    return tuple(
        {normalise(name): name for name in names if normalise(name) != normalise(own)}.values()
    )


def _sentence(sentence: str, container: str, begins: bool) -> Iterator[_BulletLine]:
    """A finding in prose: named by its grammatical subject when that is a test, else by the first
    test that it mentions.

    Where it `begins` a bullet, any subject of what was measured or of an active verb is a test, as
    the heading says; later on it may be a part of what the test before has shown.
    """
    label, rest = label_and_rest(sentence)
    if label and (begins or is_label_of_test(label)):
        yield from _tests_of_label(label, rest, container)
        return
    if row := row_of_values(sentence):
        of_all = without_markdown(sentence) if shares_status(row) else ""
        for name, item, value in row:
            test = _test_of_analyte(name, of_all or item, container)
            yield replace(test, aliases=(value["short"],) if value["short"] else ())
        return
    names = named_tests(sentence)
    subject = _subject(sentence, names, container, begins)
    # The source's words around a test: 'EBV PCR' is no plain PCR.
    phrase = phrase_of(sentence, names)
    is_list = subject in ("", container) or BARE_STATUS.match(sentence)
    if not names and subject in ("", container):
        items = tests_of_status(sentence)
        # 'Negative cytokeratin stains' go on with the biopsy.
        phrase = ", ".join(items) if all(category_of(i) == "laboratory" for i in items) else ""
    tests = tests_joined(phrase if is_list and phrase not in subject else subject)
    if len(tests) > 1:
        for item in with_specimen(tests):  # 'Normal brain CT and EMG': one finding of several tests
            name = ARTICLE.sub("", IN_BRACKETS.sub("", item))
            if canonical_of(name) is None:  # 'thrombocytopenia' is a platelet count
                name = TEST_OF_FINDING.get(normalise(name).rpartition(" ")[2], name)
            name = without_quality(re.sub(r" (?:level|value)s?$", "", name))
            asides = " ".join(IN_BRACKETS.findall(item))
            short_forms = (*ABBREVIATION.findall(item), *named_tests(asides))
            category, text = category_of(name, container), without_markdown(sentence)
            yield DocumentedTest(name, category, text, aliases=_once(short_forms, name))
        return
    # 'Intra-abdominal pressure (IAP) monitoring' will be ordered as 'IAP monitoring'.
    inside = ABBREVIATION.search(phrase)
    shorter = f"{inside[1]}{phrase[inside.end() :]}" if inside else ""
    phrase = IN_BRACKETS.sub("", phrase)
    # 'Normal sweat test, gait and ECG' is of all three.
    is_more = is_list and len(names) and phrase.startswith(f"{subject}, ")
    if name := without_quality(phrase if is_more else subject or phrase):
        # 'magnetic resonance imaging (MRI)': the short form is how it will be ordered.
        short = tuple(
            match[1]
            for match in ABBREVIATION.finditer(sentence)
            if sentence[: match.start()].endswith(name)
        )
        short += (shorter,) if " " in shorter and phrase == name else ()
        for test in _tests_of_label(name, sentence, container):
            # Of the clause that is this test's: another test of the sentence has its own entry.
            others = (*short, *_others(named_tests(test.result), test.name), *test.aliases)
            yield replace(test, aliases=_once(others, test.name))
    elif text := without_markdown(sentence):
        no_test = why_no_test("", sentence)
        # An operation is treatment, but for what it showed.
        is_course = _OPERATION.search(text) or _BEGUN.search(text)
        if is_course and not SHOWING_VERB.search(text):
            no_test = no_test or "tells of treatment or its outcome"
        if not is_documented(text):
            no_test = no_test or "no result documented"
        yield Remark(text, no_test)


def _subject(sentence: str, names: tuple[str, ...], container: str, begins: bool) -> str:
    """What a sentence is about: its grammatical subject, else the group of tests that it stands
    under, or the test at its end ('... on renal scan'); '' for none of them."""
    finding = _FINDING_OF_ROW.match(sentence)
    test = finding and TEST_OF_FINDING.get(finding["finding"].casefold())
    # 'Pancytopenia (neutrophils 430, platelets 13,000)' is no neutrophil count.
    if begins and finding and test and len(named_tests(finding["row"])) > 1:
        return test
    subject = subject_of(sentence, names, begins)
    shows = SHOWING_VERB.search(sentence)
    # 'Investigations ruled out an infection' is no more of the biopsy before.
    if shows and not subject and _INVESTIGATIONS.fullmatch(sentence[: shows.start()]):
        subject = sentence[: shows.start()]
    if not subject and not names and (code := _CODE_AND_VALUE.match(sentence)):
        subject = code["code"]
    place = TEST_BEHIND.search(sentence) if not names else None
    if place and not subject and len(tests_joined(place["test"])) > 1:
        subject = place["test"]  # '... in imaging or sputum testing'
    if begins and not subject and not names and (statement := result_told(sentence)):
        subject = statement.tests[0]  # 'Operative findings', 'Laboratory tests'
    # 'Na 130, CRP elevated': the first value is not what the sentence is about.
    if not subject and names and _is_value_name(names[0]) and "," in sentence:
        subject = container if category_of(container) == "laboratory" else ""
    if place and not subject:
        subject = place["test"]
    return subject


def _others(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    """The other tests that an entry reports. Laboratory values are found in the result itself,
    where their numbers stand; a part of the own name ('CT' of 'CT-guided biopsy') would only say
    less.
    """
    return tuple(
        other
        for other in names
        if other.casefold() not in name.casefold() and not _is_value_name(other)
    )


def _is_value_name(name: str) -> bool:
    return category_of(name) == "laboratory" and not profile(name).kinds
