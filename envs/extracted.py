"""What stays of a model's reply about a report: only what the report itself tells, in its words.

Whatever goes is noted with its reason; a reply of which too little stays is refused, so that the
model is asked again.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from medaction.envs import checks
from medaction.envs.categories import MINOR_CATEGORIES, category_of, minor_category_of
from medaction.envs.diagnosis_names import mentions, names_of
from medaction.envs.documented import is_documented, says_something
from medaction.envs.grounding import Report, Span, numbers_of
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    FINDINGS,
    can_be_same,
    canonical_of,
    profile,
    regions_in_text,
    specimen_of,
    synonyms_of,
    tokens_of,
)
from medaction.envs.records import BadCase, CaseReport, DocumentedTest, StructuredCase
from medaction.envs.redaction import redact, value_of
from medaction.envs.results_told import result_told, same_test
from medaction.words.names import normalise
from medaction.words.phrases import phrase_pattern, phrase_regex
from medaction.words.sentences import sentences
from medaction.words.tests import Category, parts_of_panel

LOST = 0.25
"""Share of the observation's characters that may be missing in the report: a model that copies
loses a sentence at most, one that rewrites loses most."""

LONGEST_RESULT = 700
"""Characters of a result; a longer passage tells a story, not a result."""

NEAR = 25
"""Characters around a test's name in which its region is named: 'CT) of the abdomen'."""

UNNAMED = "the passage does not name it"

UNKNOWN = "unknown"
"""What a model says of a label that it cannot tell."""

_ABOUT_THE_PATIENT = phrase_pattern(
    "he | she | they | his | her | patient | man | men | woman | women | boy | girl | child"
    " | infant | history | examin* | vital | symptom* | complain* | pain | smok* | alcohol"
    " | medic* | allerg* | family | blood pressure | pulse | heart rate | temperature | fever"
    " | palpa* | auscult*"
)
_BEFORE_A_CAUSE = phrase_regex(
    "due to | secondary to | caused by | resulting from | as a result of", ""
)
_CAUSE = re.compile(rf"(?P<what>.+?)\b{_BEFORE_A_CAUSE}\b(?P<cause>[^:;,.(]+)", re.IGNORECASE)
_ALSO = (
    r"[^.;]{0,30}?(?:\(|\balso\b|\bcalled\b|\bknown as\b|\btermed\b|\bor\b|\bformerly\b|\bi\.e\."
    r"|\[)"
    r"[^.;]{0,20}?"
)
_TREATING = (
    "started on | treated | given | administered | prescribed | discharged | transfused | excised"
    " | resected"
)
_COURSE = "underwent | intravenous | postoperative course | uneventful | uneventfully | mg/day"
_TREATMENT_TEXT = re.compile(
    rf"\b(?:(?:was|were) (?:\w+ )?{phrase_regex(_TREATING, '')}|{phrase_regex(_COURSE, '')})\b",
    re.IGNORECASE,
)
# 'Ventriculogram', 'sialography': a test by the ending of its name; an asymmetry is a sign.
_TESTS = re.compile(
    r"\b(?:tests?|testing|scans?|labs?|laboratory|blood ?works?|assays?|titers?|antibod\w+"
    r"|\w{4,}(?:gra(?:ms?|phy|phies)|scop(?:y|ies)|(?<!sym)metr(?:y|ies)))\b",
    re.I,
)
_MAIN_DIAGNOSIS = "final | main | principal | primary | discharge | definitive"
_DIAGNOSIS_HEADING = re.compile(
    rf"(?:#+ *)?(?:\d[\d.]* *)?(?:{phrase_regex(_MAIN_DIAGNOSIS, '')} )?diagnos[ei]s:?", re.I
)
_SAYS_DIAGNOSIS = re.compile(
    r"\bdiagnosed\b|\b(?:final|definitive|discharge|main|principal) diagnos[ei]s\b"
    r"|^diagnos[ei]s:|\b(?:the|our) diagnos[ei]s (?:was|is|were)\b|\bwas the diagnosis\b"
    r"|\bdiagnosis of\b[^.;]{3,120}? (?:was|were) (?:\w+ )?(?:made|established|confirmed|reached)\b"
    r"|\b(?:made|established|confirmed|reached) (?:the|a) diagnosis of\b",
    re.I,
)
# Words of a test's name that do not tell which test it is.
_VAGUE_NAMES = frozenset(
    """
    test tests testing scan scans imaging image study studies examination exam evaluation analysis
    level levels result results panel assessment of the activity concentration and with without
    contrast enhanced left right serum blood
    """.split()  # noqa: SIM905
)


# --- the presentation -----------------------------------------------------------------------------


def read_presentation(reply: dict[str, Any], source: Report, report: CaseReport) -> StructuredCase:
    """o1 and the diagnosis. Raises BadCase ('o1_not_grounded', 'diagnosis_not_in_report',
    'diagnosis_lacks_cause', or by the name of a check)."""
    observation, lost = grounded_sentences(reply["initial_observation"], source)
    observation, tested = without_tests(observation, source)
    # Characters, not sentences: one long made-up passage weighs as much as many.
    if sum(map(len, lost)) > LOST * len(reply["initial_observation"]):
        raise BadCase(
            "o1_not_grounded",
            "these sentences of initial_observation are not in the report:"
            f" {_quoted(lost)}; copy, never rewrite",
        )
    # One letter wrong ('intraventricular' for 'inter-') would make another disease of it.
    diagnosis = source.in_its_words(reply["diagnosis"].strip(" ."))
    if not diagnosis or not names_diagnosis(source, report.title, diagnosis):
        raise BadCase(
            "diagnosis_not_in_report",
            f"the report does not come to the diagnosis {reply['diagnosis']!r}; use its own words",
        )
    if cause := left_out_cause(report.title, diagnosis):
        raise BadCase(
            "diagnosis_lacks_cause",
            f"the title names a cause, {cause!r}, that the diagnosis {diagnosis!r} leaves out",
        )
    # A synonym that is none, made up or only part of it, would let a wrong answer pass for right.
    names = reply["diagnosis_synonyms"]
    synonyms = [name for name in names if called_alike(source.text, diagnosis, name)]
    strange = [name for name in names if name not in synonyms]
    notes = (
        *(f"left out of the observation, not in the report: {text}" for text in lost),
        *(f"left out of the observation, it tells of a test: {text}" for text in tested),
        *(f"synonym left out, the report does not call it so: {name}" for name in strange),
    )
    case = StructuredCase(
        initial_observation=observation,
        tests=(),
        diagnosis=diagnosis,
        synonyms=tuple(synonyms),
        body_system=reply["body_system"].replace(UNKNOWN, ""),
        disease_type=reply["disease_type"].replace(UNKNOWN, ""),
        rare=reply["rare_disease"],
        notes=notes,
    )
    # Asked again now, while the model may still mend it; the build would only refuse.
    for check in (checks.has_initial_observation, checks.no_diagnosis_in_o1):
        if not (result := check(report, redact(report, case).case)).passed:
            raise BadCase(result.name, result.detail)
    return case


def grounded_sentences(text: str, source: Report) -> tuple[str, list[str]]:
    """The sentences of `text` that the report tells, in the report's words, and those that it does
    not."""
    grounded, lost = [], []
    for sentence in sentences(text):
        # Sentence by sentence: a model leaves some out in between.
        span = source.find(sentence)
        if span is None:
            lost.append(sentence)
            continue
        words = source.words(span)
        grounded.append(words if words.endswith((".", "!", "?", ";", ":")) else words + ".")
    # Once each: parts of a report overlap, and models repeat.
    return " ".join(dict.fromkeys(grounded)), lost


def without_tests(observation: str, source: Report) -> tuple[str, list[str]]:
    """The sentences that go on about no test, and those that do.

    A report goes on about a test without naming it again: 'CT showed a cyst. Pleural effusion was
    present.' So a sentence that follows a result in the report, and speaks neither of the patient
    nor of history and examination, tells of the test too. A sentence that tells a result by itself
    stays here: it becomes an entry of the menu (`medaction.envs.redaction`).
    """
    following, is_result = set(), False
    for sentence in sentences(source.patient_sections()):
        is_told = result_told(sentence) is not None
        # A passage about a test ends with the first sentence about the patient.
        is_result = is_told or (is_result and not _ABOUT_THE_PATIENT.search(sentence))
        if is_result and not is_told:
            following.add(normalise(sentence))
    parts = sentences(observation)
    tested = [sentence for sentence in parts if normalise(sentence) in following]
    return " ".join(sentence for sentence in parts if sentence not in tested), tested


def left_out_cause(title: str, diagnosis: str) -> str:
    """The cause that a title gives for what the diagnosis names, if the diagnosis does not name it
    too.

    >>> left_out_cause("Haematoma due to polyarteritis nodosa: report of a case", "Haematoma")
    'polyarteritis nodosa'
    """
    # Only the title: a text names many causes of many things.
    match = _CAUSE.match(title)
    if match is None or not mentions(match["what"], diagnosis):
        return ""
    cause = match["cause"].strip()
    return "" if mentions(diagnosis, cause) else cause


def called_alike(text: str, diagnosis: str, name: str) -> bool:
    """Whether a report says that two names are one disease's: 'polyarteritis nodosa (PAN)'.

    >>> called_alike("Brucellosis is also called Malta fever.", "brucellosis", "Malta fever")
    True
    >>> called_alike("Erythema ab igne comes of heat.", "Erythema ab igne", "heat")
    False
    """
    line = " ".join(text.split())
    pairs = [(second, name) for second in (diagnosis, *names_of(diagnosis))]
    return any(
        re.search(rf"\b{re.escape(a)}{_ALSO}{re.escape(b)}\b", line, re.IGNORECASE)
        for one_name, two in pairs
        for a, b in ((one_name, two), (two, one_name))
    )


def names_diagnosis(source: Report, title: str, diagnosis: str) -> bool:
    """Whether the report is about it: one of its names stands in the title, in at least two
    paragraphs, or once where the report says that it is the diagnosis, however it is spelt.

    A discharge letter names its diagnosis once, under a heading or in 'X was diagnosed'.
    """
    lines = source.text.splitlines()
    names = (diagnosis, *names_of(diagnosis))
    return any(
        mentions(title, name) or sum(mentions(line, name) for line in lines) >= 2 for name in names
    ) or any(mentions(text, name) for text in _conclusions(lines) for name in names)


def _conclusions(lines: Sequence[str]) -> Iterator[str]:
    """What stands under a heading 'Diagnosis', and every sentence that says 'diagnosed' or 'final
    diagnosis'; a differential diagnosis is no conclusion."""
    under_heading = False
    for line in filter(None, map(str.strip, lines)):
        if under_heading:
            yield line
        # The line behind the heading alone: a section may go on with treatment.
        under_heading = bool(_DIAGNOSIS_HEADING.fullmatch(line))
        for sentence in sentences(line):
            if _SAYS_DIAGNOSIS.search(sentence):
                yield sentence


# --- the menu -------------------------------------------------------------------------------------


def read_menu(reply: dict[str, Any], source: Report) -> tuple[list[DocumentedTest], list[str]]:
    """The tests whose result the report tells, and notes of the others. Raises
    BadCase('no_grounded_test')."""
    tests: list[DocumentedTest] = []
    notes: list[str] = []
    for entry in (part for joined in reply["tests"] for part in _entries_of(joined, source)):
        span = source.find(entry["result"]) or source.find_rewritten(entry["result"])
        # The model's own only for the note of what was left out.
        words = entry["result"] if span is None else source.words(span)
        why = _unusable(entry, span, words, source, tests)
        if why == UNNAMED and (own := _only_test_of(words)):
            # 'SPEP' of a passage on immunofixation alone: the report's own name is no wrong one.
            notes.append(f"named as the report does: {entry['name']}: {own}")
            entry = entry | {"name": own, "aliases": []}
            why = _unusable(entry, span, words, source, tests)
        if why:
            notes.append(f"test left out, {why}: {entry['name']}: {words[:120]}")
            continue
        name = entry["name"].strip()
        category = cast(Category, entry["category"])
        # The model's word counts where the name fits it, else the table's.
        if minor_category_of(name, category) == MINOR_CATEGORIES[category][-1]:
            category = category_of(name, category)  # the name is no test's of that category
        minor = minor_category_of(name, category)
        quote = source.sentence(cast(Span, span))
        tests.append(DocumentedTest(name, category, words, tuple(entry["aliases"]), minor, quote))
    if not tests:
        listed = _quoted(notes) or "no test was named"
        message = f"no result stands in the report letter by letter: {listed}"
        raise BadCase("no_grounded_test", message)
    return tests, notes


def _entries_of(entry: dict[str, Any], source: Report) -> Iterator[dict[str, Any]]:
    """An entry that joins passages of several places, one for each: of as many names each has its
    own, else all have the one."""
    pieces = [piece for piece in re.split(r"[;\n]\s+", entry["result"]) if piece.strip()]
    names = re.split(r",\s+(?:and\s+)?|;\s+", entry["name"])
    if len(names) == len(pieces) > 1:
        for name, piece in zip(names, pieces, strict=True):
            yield entry | {"name": name, "result": piece, "aliases": []}
    elif len(pieces) > 1 and source.find(entry["result"]) is None:
        for piece in pieces:
            yield entry | {"result": piece}
    else:
        yield entry


def _only_test_of(words: str) -> str:
    """The one test that a passage names.

    >>> _only_test_of("Serum and urine immunofixation was normal."), _only_test_of("Hb 9, CRP 3")
    ('immunofixation', '')
    """
    mentions_here = list(dict.fromkeys(named_tests(words)))
    if len(mentions_here) != 1:
        return ""
    before, name = words.partition(mentions_here[0])[0].split(), mentions_here[0]
    if not before or before[-1] not in ("and", "or"):
        return name
    # Only the noun is of both; 'function tests' of 'renal and liver function tests' is no name.
    return next(iter(named_tests(name.partition(" ")[2])), "")


def _unusable(
    entry: dict[str, Any],
    span: Span | None,
    words: str,
    source: Report,
    tests: Sequence[DocumentedTest],
) -> str:
    """Why an entry of the reply cannot be one of the menu; empty when it can."""
    name = entry["name"]
    if span is None:
        return "its result is not in the report"
    if len(words) > LONGEST_RESULT or _tells_treatment(words):
        return "the passage tells more than its result"
    if not tells_result(words, name):
        return "the report tells no result of it"
    if not is_test(name) and result_told(words) is None:
        return "its name is no test's"
    if not _may_be_of((name, *entry["aliases"]), span, source):
        return UNNAMED
    if _is_value_of_another(name, span, source):
        return "the passage tells it of another test"
    context = source.context(span)
    if any(words == test.result and _is_same(name, test.name, context) for test in tests):
        return "it is in the menu already"
    return ""


def tells_result(words: str, name: str) -> bool:
    """Whether a passage tells a result: more than the test's name, and more than that it was made.

    >>> tells_result("CT of the chest was performed.", "CT chest"), tells_result("Hb 9", "Hb level")
    (False, True)
    """
    # A passage that is wholly in brackets is no aside: 'sepsis (CRP: 342, Hb: 68)'.
    bare = re.sub(r"^\(([^()]*)\)$", r"\1", words.strip(" .;,:"))
    # 'It was ...': a passage that is a verb alone ('then performed') reads as what was only made.
    is_result = is_documented(bare) and says_something(f"it was {bare}")
    return is_result and normalise(bare) != normalise(name)


def is_test(name: str) -> bool:
    """Whether a name is one of a test: what a report calls 'atrial fibrillation' is no test,
    whatever category a model gives it.

    >>> is_test("Coronary angiography"), is_test("Atrial fibrillation"), is_test("Limb asymmetry")
    (True, False, False)
    """
    if named_tests(name) or canonical_of(name) or profile(name).kinds or _TESTS.search(name):
        return True
    return any(
        minor_category_of(name, category) != minors[-1]
        for category, minors in MINOR_CATEGORIES.items()
    )


def _tells_treatment(words: str) -> bool:
    """Whether a passage tells what was done for the patient: 'underwent resection', where a patient
    who 'underwent a colonoscopy' had a test."""
    return any(
        match[0].casefold() != "underwent"
        or not named_tests(" ".join(words[match.end() :].split()[:4]))
        for match in _TREATMENT_TEXT.finditer(words)
    )


def _may_be_of(names: Sequence[str], span: Span, source: Report) -> bool:
    """Whether a passage may tell this test's result: it names the test, or a part of the panel; or
    it names no test at all, and the report names this one elsewhere."""
    context, sentence = source.context(span), source.sentence(span)
    if is_named(names, context):
        return True
    parts = {part for name in names for part in parts_of_panel(canonical_of(name))}
    # The entry 'CBC' may quote a passage that names hemoglobin alone.
    if any(canonical_of(mention) in parts for mention in named_tests(context)):
        return True
    # 'Leukocytosis of 23.9' is of the white blood cells.
    canonical = {canonical_of(name) for name in names} - {None}
    findings = {
        word for test in FINDINGS if canonical_of(test) in canonical for word in FINDINGS[test]
    }
    if not findings.isdisjoint(normalise(source.words(span)).split()):
        return True
    # 'It was normal': the name stands in a sentence further up.
    return not named_tests(sentence) and any(
        is_named(names, second) for second in sentences(source.patient_sections())
    )


def _is_value_of_another(name: str, span: Span, source: Report) -> bool:
    """Whether a value stands behind another analyte's name, and the test's own name before another
    value: of 'sodium was 131 and potassium 5.9' the 5.9 is no sodium."""
    sentence, words = source.sentence(span), source.words(span)
    own = value_of(name, sentence)
    if not own or own in numbers_of(words) or not re.match(r"[<>≤≥~]?\s*\d", words):
        return False
    before = normalise(source.text[max(0, span.start - 60) : span.start]).split()
    while before and before[-1] in ("was", "were", "is", "of", "at", "to", "level", "levels"):
        before.pop()
    names = (canonical_of(" ".join(before[-length:])) for length in range(4, 0, -1))
    return next(filter(None, names), canonical_of(name)) != canonical_of(name)


def is_named(names: Sequence[str], context: str) -> bool:
    """Whether a passage names the test by one of its names: by all of its telling words, by its
    initials, by another name of the same test, or, where no test's name stands there, by its kind
    ('the pathological report').

    >>> is_named(["Pulmonary angiography"], "A coronary angiography was made. It was normal.")
    False
    """
    plain = normalise(context)
    mentions_here = named_tests(context)
    # Where a test is named, its kind alone would take in every other of its kind.
    kinds = profile(context).kinds if not mentions_here else frozenset()
    for name in names:
        short = "".join(re.findall(r"([A-Za-z])[A-Za-z]*", name)).upper()
        if (
            _in_all_words(name, plain)
            or _in_most_words(name, plain)
            # In capitals as written: the initials of 'iron test' are no 'it'.
            or (len(short) > 1 and re.search(rf"\b{short}s?\b", context))
            or _is_spelt_out(name, context)
            or _is_synonym_in(name, context)
        ):
            return True
        mine = profile(name)
        if mine.kinds & kinds:
            return True
        for mention in mentions_here:
            other = profile(mention)
            # The region often stands just outside the name: 'CT) of the abdomen'.
            around = context[: context.find(mention) + len(mention) + NEAR][
                -len(mention) - 2 * NEAR :
            ]
            places = regions_in_text(tokens_of(normalise(around)))
            # Where one of them tells no region, neither contradicts.
            elsewhere = mine.regions and places and not mine.regions & places
            if mine.kinds & other.kinds and can_be_same(mine, other) and not elsewhere:
                return True
    return False


def _is_synonym_in(name: str, context: str) -> bool:
    """Whether a passage has another name of the same test: 'Platelets were 88' of 'platelet count',
    'Hb 9' of 'hemoglobin'."""
    canonical = canonical_of(name)
    if canonical is None or profile(name).specimen != profile(context).specimen:
        return False
    plain = f" {normalise(context)} "
    # An abbreviation has a capital: 'PT' is no 'pt'.
    capitals = {normalise(word) for word in re.findall(r"\b\w*[A-Z]\w*", context)}
    return any(
        f" {second} " in plain and (len(second) > 3 or second in capitals)
        for second in synonyms_of(canonical)
    )


def _is_spelt_out(name: str, context: str) -> bool:
    """Whether a passage spells an abbreviation out: 'DSA' as 'digital subtraction angiography'."""
    words = r"[\s-]+".join(rf"{letter}\w+" for letter in name)
    return name.isupper() and name.isalpha() and bool(re.search(rf"\b{words}", context, re.I))


def _in_all_words(name: str, plain: str) -> bool:
    return all(_words_named(name, plain))


def _in_most_words(name: str, plain: str) -> bool:
    """A long name may say one word more than its passage: 'lavage and pleural fluid fungal culture'
    of 'lavage and pleural fluid cultures grew ...'. A side or a region more is another test."""
    named = _words_named(name, plain)
    mine, passage = profile(name), profile(plain)
    is_place_named = mine.sides <= passage.sides and mine.regions <= passage.regions
    return len(named) >= 4 and sum(named) >= len(named) - 1 and is_place_named


def _words_named(name: str, plain: str) -> list[bool]:
    """Of each telling word of a name, whether the passage has it."""
    words = normalise(name).split()
    # A name of vague words alone ('blood test') keeps them all.
    telling = [word for word in words if word not in _VAGUE_NAMES] or words
    # 'White cell count' is named by its cells; 'complete blood count' is not by 'complete'.
    telling = telling[:-1] if len(telling) > 2 and telling[-1] == "count" else telling
    # The passage may have the word in another form: 'cultures', 'pleural', 'cerebrospinal fluid'.
    stems = {word: re.escape(word[: max(3, len(word) - 3)]) for word in telling}
    fluids = {*map(specimen_of, tokens_of(plain))} - {None}
    return [
        re.search(rf"\b{stem}", plain) is not None or specimen_of(word) in fluids
        for word, stem in stems.items()
    ]


def _is_same(name: str, second: str, context: str) -> bool:
    """Whether a second name of the same passage is the same test's: 'hemoglobin' beside 'hemoglobin
    level', 'thoracic MRI' beside 'MRI'."""
    a, b = (
        {word for word in normalise(n).split() if word not in _VAGUE_NAMES} for n in (name, second)
    )
    # Two unknown names have no canonical one: None is not None's twin.
    canonical = canonical_of(name), canonical_of(second)
    if a == b or None not in canonical:
        return a == b or canonical[0] == canonical[1]
    one_name, two = profile(name), profile(second)
    # 'Transthoracic and transesophageal echocardiography': two tests of one passage.
    plain = normalise(context)
    are_two = a - b and b - a and _in_all_words(name, plain) and _in_all_words(second, plain)
    of_two = {one_name.specimen, two.specimen} - {None}  # 'urine and blood cultures'
    if not one_name.kinds & two.kinds or are_two or len(of_two) > 1:
        return False
    elsewhere = one_name.regions and two.regions and not one_name.regions & two.regions
    # 'MRI' in the passage of 'thoracic MRI' says no more than that.
    contained = one_name.terms <= two.terms or two.terms <= one_name.terms
    return (contained and not elsewhere) or not _in_all_words(name, plain)


def coverage(tests: Sequence[DocumentedTest], names: Sequence[str]) -> float:
    """The share, 0 to 1, of the named tests that an entry of the menu is about; 1 where none is
    named."""
    return sum(is_in_menu(name, tests) for name in names) / len(names) if names else 1.0


def is_in_menu(name: str, tests: Sequence[DocumentedTest]) -> bool:
    """Whether an entry is one of this test: by its name, or because its passage or an alias has the
    name."""
    plain = normalise(name)
    return any(
        same_test(name, test.name)
        or any(plain in normalise(text) for text in (test.name, test.quote, *test.aliases))
        for test in tests
    )


def _quoted(texts: Sequence[str]) -> str:
    return "; ".join(repr(text[:100]) for text in texts[:3])
