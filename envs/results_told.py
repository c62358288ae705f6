"""Results of tests in an initial observation: those of the menu in other words, and any statement
that reads like a test's result, whatever the menu holds."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from medaction.envs.categories import category_of, known_category, minor_category_of
from medaction.envs.documented import DONE, asserted, says_something
from medaction.envs.grounding import agreement_of_texts, numbers_of, plain_text
from medaction.envs.mentions import named_tests
from medaction.envs.naming import (
    FINDINGS,
    KINDS,
    TABLE,
    TEST_OF_FINDING,
    Profile,
    canonical_of,
    profile,
    specimen_of,
)
from medaction.envs.patients import ANIMAL, PERSON
from medaction.envs.records import DocumentedTest
from medaction.envs.scripts import is_unspaced
from medaction.words.names import normalise
from medaction.words.negation import PERCEPTIONS
from medaction.words.phrases import IN_BRACKETS, phrase_pattern, phrase_regex
from medaction.words.plurals import singular
from medaction.words.sentences import statements

RESULT_LENGTH = 25
"""A shorter result ('Normal', '120/80 mmHg') can stand in the initial observation without having
been copied there."""

COPIED_AT = 95.0
"""Percent of agreement (rapidfuzz partial ratio) from which on a result's line was copied."""

FINDING = phrase_pattern(
    "showed | shows | showing | shown | revealed | reveals | revealing | demonstrated"
    " | demonstrates | demonstrating | confirmed | confirms | confirming | identified"
    " | identifying | detected | disclosed | discovered | found | noted on | suggested | suggesting"
    " | yielded | yielding | which reported | reported as"
    " | suggestive | indicated | indicating | seen on"
    " | not show | not reveal | not demonstrate | not identify | not detect | not disclose"
)
ACTIVE_FINDING = phrase_pattern("showed | revealed | demonstrated | disclosed | confirmed")
"""What has a test before it and findings behind it: 'CT showed a mass, fluid and air'."""

STATUS = (
    r"(?:normal|abnormal|elevated|raised|increased|decreased|reduced|low|high|positive|negative"
    r"|unremarkable|deranged|(?:non-?)?reactive|inconclusive|non-?diagnostic"
    r"|within (?:the |its )?(?:normal|reference) (?:limit|range|value|level|interval)s?)"
)
# What says of a subject, far before it perhaps, how it came out: 'which turned out to be normal'.
_PREDICATE = (
    r"\b(?:was|were|is|are|remained|proved|tested|return(?:ed|ing)|c(?:a|o)m(?:e|ing)(?: back)?"
    r"|turned out|(?:was|were) found)(?: (?:to be|as|all|both|also|again|\w+ly)){0,2}"
    rf" {STATUS}\b"
)
_NO_NAME = (
    r"(?:and|but|or|on|in|at|by|with|from|of|after|before|during|when|while|last|this|that|which"
    r"|who|a|an|the|twice|once|again|was|were|is|had|has|\d"
    r"|(?:[\w-]+ )?(?:day|week|month|year)s?)\b"
)
# A concentration: per volume, so neither a dose (5 mg) nor a flow (2 L/min).
_CONCENTRATION = re.compile(
    r"\d\s*(?:[munpkµμ]?(?:g|mol|kat|IU|U|Eq)|cells|(?:[×x]\s*)?10[\^]?\d+)?\s*/\s*"
    r"(?:[dmuµμ]?L|mm3|mm³)\b(?!/)|\d\s*mm/h"
    r"|\d\s*[GT]/L\b|\btimes (?:the )?upper\b"
    r"|\d\s*[а-я]{1,6}/м?к?д?л\b"
)
# 'Elevated IgE levels', 'increased hs-cTnI': an analyte that is written as a code.
_LEVEL_OF_CODE = re.compile(
    r"\b(?i:elevated|raised|increased|decreased|reduced) (?:serum |plasma |blood )?"
    r"(?P<analyte>(?=[\w-]+[A-Z\d])[A-Za-z][\w-]+)(?: levels?\b|\W*$)"
    # 'ADAMTS13 activity was above 50 %'; 'the L4 level' is a place.
    r"|\b(?P<enzyme>(?=[\w-]{0,9}[A-Z]{2})(?![CTLS]\d)[A-Za-z][\w-]{1,19}) (?i:activity|levels?)\b"
    rf"[^.;,]{{0,30}}?(?i:\d|\b{STATUS}\b)"
)
_LASTING = re.compile(
    r"\b(?:history of|known|(?:high|low) (?:\w+ ){1,3}?(?:for (?:[\w-]+ ){1,3}?(?:years|decades)"
    r"|since (?:(?:his|her|their|early) )*(?:(?:19|20)\d\d|youth|childhood|\w*(?:teens|ties))))\b",
    re.IGNORECASE,
)
# A test by what was sought: 'His donation tested reactive for treponemal antibodies'.
_TESTED_FOR = re.compile(
    rf"\b(?:test(?:ed|s)|screen(?:ed|s)|reads?|c[ao]me back|returned) (?:\w+ly )?{STATUS} for"
    rf" (?:the |an? )?(?P<sought>[\w-]+(?: (?!{_NO_NAME})[\w-]+){{0,2}})",
    re.IGNORECASE,
)
# The patient as the subject before that verb, or none. Another's test is an exposure: 'Two
# neighbours tested positive for influenza', 'the bat that bit him tested positive for rabies'.
_PATIENT = r"(?:he|she|it|(?:the|this) (?:patient|man|woman|boy|girl|child|infant|baby))"
_OF_PATIENT = re.compile(
    rf"\b{_PATIENT}(?: who)?(?: (?:had|has|also|then|later|\w+ly))*\W*$"
    rf"|^\W*{_PATIENT}\b(?!.*\b(?:that|who|which|whose)\b)|^\W*(?:(?:and|but|then)\W*)*$",
    re.IGNORECASE,
)
# 'Under the microscope spindle cells ran through it'.
_MICROSCOPE = phrase_pattern(
    "under the microscope | under a microscope | under the * microscope | under a * microscope"
    " | on microscopy | by microscopy | on * microscopy | by * microscopy | microscopically"
)
# 'A QZ/RT-1 ratio of 77': of codes, since a ratio in words may be of the body's measures.
_RATIO_OF_CODES = re.compile(r"\b(?P<ratio>(?=\S*[A-Z\d])[\w-]+/[\w-]+ ratio) (?:of|was|at) \d")
# 'Biopsy-proven coeliac disease': how a disease became known, no result that is told now.
_PROVEN = re.compile(r"\b[\w-]+-(?:proven|confirmed|verified)\b", re.IGNORECASE)
# What a test, named somewhere before it, is said to have found: 'blood count, liver enzymes and CRP
# | were normal', 'an ultrasound | and no mass was seen', 'CT | excluded a bleeding'.
_TOLD_LATER = re.compile(
    rf"{_PREDICATE}|\b(?:excluded|ruled out)\b"
    # Of an image: 'and the pain was noted to be worse' goes on with the history.
    r"|\b(?:and|which) (?:no|an?|two|three|several|multiple|many) (?:[\w-]+ ){1,7}?(?:was|were)"
    r" (?:\w+ly )?(?:not )?(?:seen|detected|identified|visible)\b",
    re.IGNORECASE,
)
# Another verb, or another one who is spoken of, between the two.
_ANOTHER_SUBJECT = re.compile(
    r"[.;]|\b(?:was|were|is|are|been?|had|has|he|she|they|who|patient|because|while|when)\b"
    r"|,(?: and)? (?:the|an?|his|her|its|their|we|there)\b(?! results?\b)",
    re.IGNORECASE,
)
# What an image alone has: signal, density, echo. 'Hypermetabolic' is a state of the body, too.
_IMAGE_OF_SIGNAL = {"intens": "MRI", "dens": "CT", "attenuat": "CT", "echo": "Ultrasound"}
_DEGREES = ("hyper", "hyper ", "hypo", "hypo ", "iso", "iso ")
_SIGNAL = phrase_pattern(
    " | ".join(
        ["anecho*", *(f"{degree}{stem}*" for stem in _IMAGE_OF_SIGNAL for degree in _DEGREES)]
    )
)
_PRESENT_ILLNESS = re.compile(r"\W*history(?: of (?:the )?present illness)?\W*:\W*", re.IGNORECASE)
_PHRASE_END = re.compile(r"[,;.]\s+|\band\b")
_PREPOSITIONS = "as | by | for | from | to | at | on | in | of | with"
_PREPOSITION = phrase_pattern(_PREPOSITIONS)
_LONGEST_PHRASE = 4
"""Words of a list's item. In 445 real cases three such items tell a result, of which one was known
(looked at while it was written); longer ones are the patient's own words."""
_ELISION = re.compile(r"\b\w['’](?=\w{3})")  # of French and Italian: l'endoscopie
# Symbols are written in capitals: 'K 3.1'; behind 'mg' the number was a dose.
_SYMBOL_AND_VALUE = re.compile(
    r"\b(?P<symbol>(?=\w*[A-Z])[A-Za-z][A-Za-z\d]{0,4}[+-]?)(?:\s|\s?[:=<>]\s?)[<>]?\d+(?!\S*\s?m?c?g\b)"
)
_LABEL_END = re.compile(r":|\s[-–—]\s")
# A test by the noun at the end of its name, whatever stands before it.
_TEST_NOUN = (
    r"(?:profiles?|panels?|screens?|strips?|tracings?|recordings?|potentials?|assays?|analys[ie]s"
    r"|stud(?:y|ies)|counts?|titers?)"
)
# What is said of a test by a noun behind its name: 'stool occult blood test', 'biopsy sample'.
_CARRIERS = frozenset(
    """
    test testing result finding report reading sample specimen workup work-up work investigation
    evaluation
    """.split()  # noqa: SIM905
)
_OF_DEVICES = ("laboratory", "imaging", "pathology")
_NOUN_OF_TEST = re.compile(rf"\s+(?:{_TEST_NOUN}|tests?|testing|antibod(?:y|ies)|antigens?)$")
_NORMAL = re.compile(rf"\b{STATUS} (?P<test>(?:[\w-]+ ){{1,5}}?{_TEST_NOUN})\b", re.IGNORECASE)
# 'A dengue NS1 test came back negative'.
_TEST_WITH_STATUS = re.compile(
    rf"\b(?:an? |the )?((?:[\w-]+ ){{1,2}}(?:test|assay))\b[^.;,]{{0,40}}? {STATUS}\b",
    re.IGNORECASE,
)
# A verb whose subject may be a test, and that it has something behind it: 'the film displayed a
# cyst', 'was clear', 'had been read as a cyst'; not 'was done in May', 'followed by surgery'.
_NO_OBJECT = (
    r"(?!(?:by|in|on|at|for|to|from|into|over|under|between|within|without|through|during|until"
    r"|since|after|before|again|because|with|and|but|when|while|as|his|hers?|their|him|them)\b"
    r"|[\w-]+ (?:hour|day|week|month|year)s?\b)"
)
# Verbs without '-ed' of what a thing bears or brings; not what a procedure does ('left', 'made').
_IRREGULAR_VERBS = (
    r"(?:shown|ha[ds](?! been)|held|bore|drew|grew|gave|caught|saw|found|lit up|stood|rose|fell"
    r"|ran|read|failed to|came back(?: with)?|comes back(?: with)?)"
)
_TOLD_BY_SUBJECT = re.compile(
    r"\s(?:(?:had|has) )?(?:been \w+ as|(?:was|were|is|are|been)"
    r" (?!(?:\w+ly )?\w+(?:ed|ing)\b|done|taken|made|given|available|not|never)"
    rf"|tested (?={STATUS})|{_IRREGULAR_VERBS}|(?!{DONE})[a-z]{{2,}}ed(?: with| up)?"
    # In the present only before what cannot go on a noun: 'the scan delineates a cyst'.
    r"|[a-z]{3,}s(?= (?:an?|no|two|three|several|multiple|many|some)\b)"
    rf") ?(?<= ){_NO_OBJECT}(?=\w)",
    re.IGNORECASE,
)
_BEHIND_PLACE = "the | a | an | there | his | her | that | which | of | from | in | at | last"
# 'On the isotope scan the femur lit up', 'a deletion was picked up on a panel'.
_TOLD_BY_PLACE = re.compile(
    r"(?:(?:^|\b(?:was|were|been) \w+ (?:up )?)(?:on|by|via|according to)"
    r"|^(?:from|in|during)(?= (?:[\w-]+ ){1,5}?[\w-]+, (?:the|an?)\b)"
    rf"|\b{phrase_regex(PERCEPTIONS, '')} in) (?:an?|the|his|her|their)"
    r" ((?:[\w-]+ ){0,3}?[\w-]+)"
    rf"(?=,? {phrase_regex(_BEHIND_PLACE, '')}\b|[.;,]|$)",
    re.IGNORECASE,
)
_LONGEST_SUBJECT = 8
"""Words of a test's name as a subject, our choice: 'the Shiga toxin fecal polymerase chain reaction
test' has seven."""
_FLUID_AT_END = re.compile(r"([\w-]+)(?: fluid)?$", re.IGNORECASE)
_JOINING = "that | and | but | then | while | who | whose | which"
_CLAUSE_BEFORE = re.compile(rf"\b{phrase_regex(_JOINING, '')}\b|[;.:]\s")
_SAMPLED = "taken | obtained | sent | drawn | collected"
_BEHIND_SUBJECT = (
    "of | on | in | at | for | from | by | with | after | before | done | made | performed | worn"
    f" | reading | last | this | that | earlier | yesterday | {_SAMPLED}"
)
_SUBJECT_END = re.compile(rf",|\s(?:{phrase_regex(_BEHIND_SUBJECT, '')}|{DONE})\b")
_BEFORE_A_NAME = frozenset(
    """
    a an the his her their its these this those all both once when since because
    """.split()  # noqa: SIM905
)
_ANOTHER_NOUN = tuple(f", {word} " for word in ("a", "an", "the", "his", "her", "we"))
# Words that no test's name has before its noun: 'infection can result', 'upon evaluation'.
_IN_NO_NAME = frozenset(
    """
    can could may might will would should to upon following after based given according as by for
    from at in on with
    """.split()  # noqa: SIM905
)
_TAKEN = phrase_pattern(_SAMPLED)
# 'Her film, which a colleague had ordered, had ...', 'a film that I took last week showed ...':
# said of the subject in passing.
_RELATIVE_CLAUSE = re.compile(
    r", (?:which|taken|done|made|performed|obtained)\b[^,]*,"
    r"| that (?:I|we|he|she|they|(?:an?|the|his|her|their|my|our)(?: \w+){1,2}?)(?: ha[ds])? \w+"
    rf"(?: \w+){{0,3}}?(?={_TOLD_BY_SUBJECT.pattern})",
    re.IGNORECASE,
)
# A gene's name in capitals, that something was found in it, and the finding.
_GENE_SYMBOL = re.compile(r"\b[A-Z][A-Z0-9]{2,7}\b")
_FOUND_IN_GENE = phrase_pattern(
    "found | detected | identified | revealed | showed | confirmed | tested | positive | carry"
    " | carries | carried | carrier"
)
_MUTATION_WORD = phrase_pattern("mutation | variant | deletion | *zygous")
_LABS = re.compile(
    r"(?:blood|laboratory|lab) ?(?:tests?|works?|findings|results?|studies|investigations?)",
    re.IGNORECASE,
)
# Tests by a general word: 'cysts observed on imaging', 'blood tests showed anemia'; and what an
# operation found.
_GENERAL_TEST = re.compile(
    r"(?P<imaging>\b\w+ (?:\w+ )?(?:on|by|via|in) (?:\w+ )?imaging\b"
    # 'A scan that revealed a mass': the subject of the verb is a pronoun.
    rf"|\b(?:imaging|scans?),? (?:\w+ ){{0,4}}?(?:{FINDING.pattern})"
    rf"|\bimaging of [^.;,]{{0,60}}, (?:which )?(?:{FINDING.pattern}))"
    r"|(?P<cell_count>\d ?%[^.;,]{0,40}\b(?:bone marrow|peripheral blood|smear|fluid)\b)"
    r"|(?P<laboratory_tests>\b\w+-(?:positive|negative) (?:sputum|blood|urine|stool|swab|csf)\b"
    r"|\b(?:swab|smear|culture|scraping)s?\b[^.;,]{0,40} (?:was|were|is|are|came back|returned)"
    r" (?:\w+ly )?(?:positive|negative)\b"
    rf"|\b{_LABS.pattern} (?:\w+ ){{0,5}}?(?:{FINDING.pattern})"
    rf"|\b{_LABS.pattern}\b[^.;]{{0,200}}?{_PREDICATE}"
    rf"|\b\w+ (?:on|by|via|in) (?:\w+ )?{_LABS.pattern}\b)"
    r"|(?P<karyotype>\A(?!.*\b(?:carrier|known)\b).*?\b4[5-8],\s?X[XY]{0,3}\b)"
    r"|(?P<culture>\b(?P<specimen>sputum|blood|urine|stool|pus|fluid|swab|wound|csf)s?"
    # 'The wound on his leg grew larger' is no culture.
    r"(?:(?: \w+)? (?:grew|grown)\b|(?: \w+){2,4} grew (?:(?-i:[A-Z])|an?\b|no\b))"
    rf"|\bcultures? (?:\w+ )?(?:{FINDING.pattern}|grew|noted|yielded)\b"
    r"|\b(?:identified|found|detected|isolated|grown) (?:in|from|on) (?:\w+ ){0,3}cultures?\b)"
    # 'However, it was negative for a thrombus'; a pregnancy is unremarkable, and never negative.
    r"|(?P<investigations>\A\W*(?:however, |but )?(?:it|they|both|all)(?: of them)? (?:was|were)"
    r" (?:\w+ )?negative(?: for\b|\W*\Z)"
    # Not 'his school results were low'.
    rf"|(?:\A\W*|\b(?:the|these|all|both|his|her|their|test) )results? {_PREDICATE}"
    r"|\b(?:investigations?|work-?ups?|(?:these|all|further|other|routine) (?:tests|studies))\b"
    # 'Workups were inconclusive' is a history.
    rf"[^.;,]{{0,40}}? (?:{FINDING.pattern}|{_PREDICATE}(?<!inconclusive)))"
    # Of a relative, and so of the patient.
    r"|(?P<genetic_testing>\bthe same (?:\w+ )?(?:(?:mutation|genotype)s?\b"
    # Not 'the same variant of asthma'.
    r"|variants?\b(?! of (?-i:(?!the\b|an?\b|un(?:certain|known)\b)[a-z]{4}))))"
    r"|(?P<operative_findings>\bintra-?operative findings\b"
    r"|\b(?:intra-?operatively"
    r"|(?:at|during) (?:[\w-]+ )?(?:surgery|operation|\w{3,}(?:otomy|oscopy))\b)"
    r"(?=.*\b(?:was|were|found|identified|revealed|showed)\b)"
    r"|\b(?:found|noted|seen|detected|identified|discovered) (?:intra-?operatively"
    r"|(?:at|during) (?:[\w-]+ )?(?:surgery|operation|c(?:a)?esarean(?: section| delivery)?"
    r"|\w{3,}(?:otomy|oscopy))\b))",
    re.IGNORECASE,
)
_NO_ANALYTE = r"(?:was|were|been|of|at|is|with|in|by|to|from|than|about|over|and|or|x)\b"
_ANALYTE = re.compile(
    rf"\b((?:(?:serum|plasma|urine|blood) )?(?!{_NO_ANALYTE})[A-Za-z][\w-]*)[^\w-]{{1,2}}"
    r"(?:was |were |of |at |is )?(?=\d)"
)
# What is looked at or listened to at the first encounter, though it can be ordered too.
_BEDSIDE = frozenset({"ophthalmic tests", "hearing and balance", "ENT endoscopy"})
EXAMINED = phrase_pattern(
    "vital sign | vitals | physical exam | physical examination | general exam"
    " | general examination | general appearance | fundus* | fundoscop* | blood pressure | pulse"
    " | temperature | body temperature | oxygen saturation"
)
"""Names of what is read off the patient at the first encounter: no test that has to be ordered."""
# Words that only a laboratory can tell, by its test: 'pancytopenia'.
_BLOOD_FINDINGS = {
    word: test
    for word, test in TEST_OF_FINDING.items()
    # Endings: counts and electrolytes are not seen or felt; 'anemia' may be meant by pallor, and
    # blood or pus in the urine is seen.
    if re.search(
        r"(?:penia|cytosis|philia|(?:natr|kal|calc|albumin|prote|ferritin|ammon)emia"
        r"|(?<!hemat)(?<!py)uria)$",
        word,
    )
}
_RECORDS = frozenset(TABLE["records"].split())
_COMMON = frozenset(TABLE["tells_nothing"].split())
"""Words that say nothing of what a test found."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A result told in running text: the clause that tells it, and the tests that it names."""

    text: str
    tests: tuple[str, ...]


def result_told(clause: str) -> Statement | None:
    """The clause as a result, where it reads like one: a test with what it found, a concentration,
    or a mutation.

    Tests of the bedside (vision, hearing, ears) are no results here: they belong to the
    examination.

    >>> result_told("an earlier blood test with elevated ALT and GGT").tests
    ('ALT', 'GGT')
    >>> result_told("CT was planned"), result_told("she takes 5 mg of iron a day")
    (None, None)
    """
    statement = _statement(asserted(_PROVEN.sub("", clause)))
    return statement and Statement(clause, statement.tests)


def _statement(clause: str) -> Statement | None:
    value = _CONCENTRATION.search(clause)
    # Without a concentration a word before a number may be anything: an age, a dose.
    # 'Sodium, taken the week before, was 121': the subject is not beside its value.
    measured = [*_ANALYTE.findall(clause), clause.partition(",")[0]] if value else []
    # '(a type of white blood cell)' explains; an aside with a number tells a value.
    explained = IN_BRACKETS.sub(lambda aside: aside[0] if _has_digit(aside[0]) else "", clause)
    tests = (*(named_tests(explained) or named_tests(clause)), *filter(canonical_of, measured))
    nouns = [_noun_of(name).capitalize() if name.endswith("ically") else name for name in tests]
    names = _different(_in_its_fluid(name, clause) for name in filter(is_ordered, nouns))
    # From the surest form to the least: a clause is a result once, under its first reading.
    if test := labelled_test(clause) or _measured_test(clause):
        return Statement(clause, names or (test,))
    if names and (FINDING.search(clause) or any(_has_value(name, clause) for name in names)):
        return Statement(clause, _different((*names, *_TEST_WITH_STATUS.findall(clause))))
    if test := _subject_that_tells(clause) or _told_of_specimen(clause):
        return Statement(clause, names or (test,))
    if signal := _SIGNAL.search(clause):
        of_image = tuple(name for name in names if category_of(name) == "imaging")
        word = signal[0].casefold()
        image = next(test for stem, test in _IMAGE_OF_SIGNAL.items() if stem in word)
        return Statement(clause, of_image or (image,))
    if not names and (general := _GENERAL_TEST.search(clause)):
        name = next(kind for kind, words in general.groupdict().items() if words)
        # 'Salmonella-positive stool' is no test of the blood.
        of_word = general[0].rpartition(" ")[2].casefold() if name == "laboratory_tests" else ""
        specimen = general["specimen"] or (specimen_of(of_word) and of_word)
        name = " ".join(filter(None, (specimen, name.replace("_", " "))))
        return Statement(clause, (name.capitalize(),))
    # 'Anemia with no identified cause' is a history.
    has_finding = any(
        clause[: finding.start()].casefold().split(" ")[-2:-1] not in (["no"], ["any"])
        for finding in FINDING.finditer(clause)
    )
    is_of_blood = not names and has_finding and not EXAMINED.search(clause)
    if is_of_blood and (blood_tests := _found_in_blood(clause)):
        return Statement(clause, blood_tests)
    # All three: a gene, a finding verb and a mutation, else it is a family's history.
    if all(pattern.search(clause) for pattern in (_GENE_SYMBOL, _FOUND_IN_GENE, _MUTATION_WORD)):
        return Statement(clause, names or ("Genetic testing",))
    if level := _LEVEL_OF_CODE.search(clause):
        return Statement(clause, names or (level["analyte"] or level["enzyme"],))
    if ratio := _RATIO_OF_CODES.search(clause):
        return Statement(clause, names or (ratio["ratio"],))
    if (normal := _NORMAL.search(clause)) and is_ordered(normal["test"]):
        return Statement(clause, names or (normal["test"],))
    # A concentration is a laboratory's, even where no name is known.
    if value:
        analytes = _ANALYTE.findall(clause[: value.end()])
        tests = names or _found_in_blood(clause)
        return Statement(clause, tests or (analytes[-1] if analytes else "Laboratory tests",))
    return None


def _in_its_fluid(name: str, clause: str) -> str:
    """'CSF glucose' of 'CSF glucose was 20': a glucose alone would be the blood's."""
    before, behind, _ = clause.partition(f" {name}")
    fluid = _FLUID_AT_END.search(before[-40:])
    is_open = behind and profile(name).specimen is None and category_of(name) == "laboratory"
    is_fluid = fluid and specimen_of(fluid[1].casefold()) not in (None, "blood")
    return f"{fluid[0]} {name}" if fluid and is_fluid and is_open else name


def _subject_that_tells(clause: str) -> str:
    """The test that is the subject of a verb with an object, by the noun at its end: 'needle
    aspirate' of 'A needle aspirate had shown granulomas'; '' for none."""
    clause = _RELATIVE_CLAUSE.sub("", IN_BRACKETS.sub("", clause))
    for verb in _TOLD_BY_SUBJECT.finditer(clause):
        subject = _CLAUSE_BEFORE.split(clause[max(0, verb.start() - 120) : verb.start()])[-1]
        # 'On Monday, the film displayed': the subject stands behind the comma.
        for part in dict.fromkeys((subject.strip(), subject.rpartition(",")[2].strip())):
            head = _SUBJECT_END.split(part, maxsplit=1)[0].rstrip(":")
            name = " ".join(itertools.dropwhile(_stands_before_a_name, head.split(" ")))
            # 'Based on the ultrasound findings, a diagnosis ...' has another subject.
            if f"{part[len(head) :]} ".casefold().startswith(_ANOTHER_NOUN):
                continue
            # 'The colonoscopy relieved him', 'the endoscopy required sedation': a procedure acts.
            acts = verb[0].endswith("ed ") and category_of(name) == "procedure"
            # 'Her culture shaped how she eats'
            acts = acts or head.casefold() in ("his culture", "her culture", "their culture")
            # 'Midstream urine sent by the clinic failed to grow anything'
            is_taken = _TAKEN.match(part[len(head) :].lstrip()) and specimen_of(
                name.casefold().rpartition(" ")[2]
            )
            if (
                (_ends_in_test(name) or is_taken)
                and not acts
                and is_ordered(name)
                and not _LABS.fullmatch(name)
                and says_something(clause)
            ):
                return name
    place = _TOLD_BY_PLACE.search(clause)
    # 'He was seen by the radiologist'
    if not place or ("by " in place[0] and place[0].endswith(("ist", "ian", "grapher"))):
        return ""
    return place[1] if _ends_in_test(place[1]) and is_ordered(place[1]) else ""


def _has_digit(text: str) -> bool:
    return any(map(str.isdecimal, text))


def _stands_before_a_name(word: str) -> bool:
    """'The', 'her', 'doctor's': what is no word of a test's name yet."""
    return word.casefold() in _BEFORE_A_NAME or word[1:].endswith(("'s", "’s"))


def _noun_of(adverb: str) -> str:
    """'microscopy' of 'microscopically', 'immunohistochemistry' of 'immunohistochemically'."""
    noun = f"{adverb.casefold().removesuffix('ically')}y"
    return noun.replace("chemy", "chemistry")


def _told_of_specimen(clause: str) -> str:
    """The test of what was tested for, or looked at: 'treponemal antibodies' of 'his donation
    tested reactive for treponemal antibodies', 'histology' of 'histologically, it was ...'."""
    sought = _TESTED_FOR.search(clause)
    # A card reads, a sample comes back: only who is tested or screened may be another.
    is_person_s = sought and sought[0].casefold().startswith(("test", "screen"))
    if sought and (not is_person_s or _is_of_patient(clause[: sought.start()])):
        return sought["sought"]
    if _MICROSCOPE.search(clause):
        return "Microscopy"
    if "ically" not in clause:
        return ""
    words = [word.strip(",;:.()") for word in f"{clause.casefold()} ".split(" ")]
    nouns = (
        _noun_of(word)
        for word, following in itertools.pairwise(words)
        if word.endswith("ically") and following not in ("guided", "assisted", "controlled")
    )
    return next((n for n in nouns if known_category(n) in ("imaging", "pathology")), "")


def _is_of_patient(before: str) -> bool:
    """Whether what stands before a verb of testing has the patient for its subject, or a specimen
    or test of nobody else."""
    if _OF_PATIENT.search(before):
        return True
    is_test = any(map(specimen_of, before.casefold().split())) or profile(before).kinds & KINDS
    return bool(is_test) and not PERSON.search(before) and not ANIMAL.search(before)


def _ends_in_test(name: str) -> bool:
    """Whether the noun at the end of a name says a test: 'antibody therapy' is none, and 'blood' is
    a specimen."""
    words = name.split()
    # 'Histologically, such tumors are ...' has another subject.
    if not 1 <= len(words) <= _LONGEST_SUBJECT or words[-1].endswith("ly"):
        return False
    if not _IN_NO_NAME.isdisjoint(map(str.casefold, words)):
        return False
    if len(words) > 1 and singular(words[-1].casefold()) in _CARRIERS:
        before = " ".join(words[:-1])
        return known_category(name) in _OF_DEVICES or bool(profile(before).kinds & KINDS)
    last = profile(words[-1]).kinds
    kinds = last or profile(" ".join(words[-2:])).kinds - profile(" ".join(words[-2:-1])).kinds
    is_known = kinds & KINDS or words[-1].casefold() in _RECORDS
    is_noun = 1 < len(words) <= 5 and re.fullmatch(_TEST_NOUN, words[-1])
    is_seen = known_category(words[-1]) in ("imaging", "pathology")
    # 'Polysomnogram' by polysomnography
    is_gram = words[-1].endswith("gram") and known_category(f"{words[-1][:-4]}graphy")
    return bool(is_known or is_noun or is_seen or is_gram)


def _found_in_blood(clause: str) -> tuple[str, ...]:
    """The tests of findings that have one: hemoglobin of 'severe anaemia was discovered'."""
    words = set(normalise(clause).split())
    return tuple(test for test, findings in FINDINGS.items() if words & set(findings))


def _different(names: Iterable[str]) -> tuple[str, ...]:
    """The names of different tests, each as it is told first."""
    # Reversed twice: the first name of a test stays, at its place.
    return tuple({canonical_of(name) or name: name for name in reversed([*names])}.values())[::-1]


def labelled_test(text: str) -> str:
    """The test whose name is the label of `text`: 'CXR' of 'CXR: cardiomegaly' and of 'CXR - no
    fluid'; '' where it is none."""
    label, *finding = _LABEL_END.split(text.lstrip(" -*•"), maxsplit=1)
    # Longer labels are sentences with a colon.
    if not any(map(str.strip, finding)) or len(label.split()) > 5:
        return ""
    # A dash stands inside a sentence as well: 'He had a CT - in vain'.
    is_label = f"{label}:" in text or not profile(label).terms
    is_test = canonical_of(label) is not None or (is_label and bool(profile(label).kinds & KINDS))
    # 'Neurological exam:' is the bedside's.
    is_test = is_test and not label.casefold().endswith((" exam", " examination"))
    return label.strip() if is_test and is_ordered(label) else ""


def _measured_test(clause: str) -> str:
    """The analyte whose symbol has a number behind it: 'Na+' of 'Na+ 112'. A word may be a drug and
    the number its dose."""
    for match in _SYMBOL_AND_VALUE.finditer(clause):
        if canonical_of(match["symbol"]) is not None and is_ordered(match["symbol"]):
            return match["symbol"]
    return ""


def is_ordered(name: str) -> bool:
    """Whether a test is one of the laboratory, of imaging, or else beyond the bedside."""
    minor = minor_category_of(name, category_of(name))
    return minor not in _BEDSIDE and not EXAMINED.match(canonical_of(name) or name)


def _has_value(name: str, clause: str) -> bool:
    """'elevated ALT', 'ALT was high', 'AFP at 812', 'CT scans were normal'."""
    # 'A history of high cholesterol', 'high cholesterol for twenty years' is a disease.
    lasting = _LASTING.search(clause)
    if lasting and not _has_digit(clause.replace(lasting[0], "")):
        return False
    return says_something(clause) and (
        _result_of(name).search(clause) is not None or _is_told_later(name, clause)
    )


def _is_told_later(name: str, clause: str) -> bool:
    """Whether a predicate further on is of the test: 'CBC, liver enzymes and CRP were normal'."""
    behind = IN_BRACKETS.sub("", clause).partition(name)[2]
    return any(
        not _ANOTHER_SUBJECT.search(behind[: predicate.start()])
        for predicate in _TOLD_LATER.finditer(behind)
    )


@lru_cache(maxsize=2000)
def _result_of(name: str) -> re.Pattern[str]:
    """The ways in which a clause tells the result of a test by its name."""
    pattern = re.escape(name)
    after = rf"{pattern}\b[^.;,]{{0,30}}?"
    # 'Followed by CT' tells of the next step, no result.
    ways = [
        rf"{pattern}\b[^.;,:()]{{0,30}}: \w",
        rf"(?<!followed) \b(?:on|by|via) (?:\w+ ){{0,2}}{pattern}",
        rf"^(?:on|by|via) (?:\w+ ){{0,2}}{pattern}",
        rf"\b{STATUS} (?:\w+ )?(?:\w+ (?:and|or) )?{pattern}",
        rf"{after}\b{STATUS}\b",
        # Neither a duration nor a year: 'CT 3 weeks ago', 'hepatitis C in 2015'.
        rf"{after}(?<![\d.-])\b(?!(?:19|20)\d\d\b)\d(?! (?:years|months|weeks|days))",
        rf"{pattern}\b[^.;,]{{0,60}}? (?:(?:c[ao]me (?:back|in|out)|returned|stood) at \d|\d+ ?%)",
        rf"\b(?:excluded|ruled out) (?:with|using|through) (?:\w+ ){{0,3}}{pattern}",
        rf"{after} (?:notable|remarkable|significant) for\b",
    ]
    # 'Biopsy was benign' is a result; 'glucose was measured' is none.
    if category_of(name) != "laboratory":
        ways.append(rf"{after} (?:had|has|was|were|is)\b")
    return re.compile("|".join(ways), re.IGNORECASE)


def is_told(test: DocumentedTest, text: str, complaint: str = "") -> bool:
    """Whether `text` tells the test's result, or a part of it; words of the `complaint` are no
    finding."""
    return (
        tells_whole(test, text, complaint)
        or _repeats_entry(test, text, complaint)
        or _names_finding(test, text, complaint)
    )


def tells_whole(test: DocumentedTest, text: str, complaint: str = "") -> bool:
    """Whether `text` tells the test's result so that nothing is lost without the text: a line of it
    that is too long to stand there by chance, its value beside its name, or the finding in other
    words; words of the `complaint` are no finding.
    """
    plain = plain_text(text)
    lines = [plain_text(line) for line in test.result.splitlines()]
    if _copies(test.result, text) or _retells(test, text, complaint):
        return True
    if any(
        RESULT_LENGTH <= len(line) <= len(plain) and agreement_of_texts(line, plain) >= COPIED_AT
        for line in lines
    ):
        return True
    return test.category == "laboratory" and any(
        _beside(name, line, plain) for name in (test.name, *test.aliases) for line in lines
    )


def blood_findings(text: str) -> dict[str, str]:
    """The words of `text` that only a laboratory can tell, each with its test.

    >>> blood_findings("Fever and pancytopenia")
    {'pancytopenia': 'complete blood count'}
    """
    words = re.findall(r"[a-z]{8,}", text.casefold())
    return {word: _BLOOD_FINDINGS[word] for word in words if word in _BLOOD_FINDINGS}


def _copies(result: str, text: str) -> bool:
    """Whether `text` has five words in a row of the result that name a test and what it found: 'CT
    and MRI confirmed cellulitis'."""
    plain = " ".join(text.split())
    runs = (run for run in _runs_of_five(result) if run in plain)
    return any(FINDING.search(run) and named_tests(run) for run in runs)


@lru_cache(maxsize=512)
def _runs_of_five(result: str) -> tuple[str, ...]:
    words = result.split()
    return tuple(" ".join(words[start : start + 5]) for start in range(len(words) - 4))


def _retells(test: DocumentedTest, text: str, complaint: str) -> bool:
    """Whether a sentence tells the result in other words: it names the test, or one of its kind,
    with a verb of finding, and shares two or more content words with the result, which are neither
    in the names of the tests nor in the complaint.
    """
    words = _telling_words(test.result, test.name, complaint)
    return len(words) >= 2 and any(
        len(words & shared) >= 2 and any(same_test(name, test.name) for name in names)
        for shared, names in _findings(text)
    )


def _repeats_entry(test: DocumentedTest, text: str, complaint: str) -> bool:
    """Whether a sentence names the test as the menu does, in whatever language, and shares a
    content word with its result; or tells a number of the laboratory's with such a word: '78 %
    blasts'."""
    name = set(normalise(test.name).split())
    if is_unspaced(test.result):
        return _repeats_characters(test, text)
    words = _telling_words(test.result, test.name, complaint)
    if not words:
        return False
    numbers = {number for number in numbers_of(test.result) if len(number) > 1}
    # Two digits: '5' and '7' stand everywhere.
    measured = numbers if test.category in ("laboratory", "pathology") else set()
    return any(
        bool(words & shared) and (name <= plain or bool(measured & figures))
        for plain, shared, figures in _compared_statements(text)
    )


def _repeats_characters(test: DocumentedTest, text: str) -> bool:
    """The same in a script without spaces: a sentence with the test's name and three characters in
    a row of its result."""
    name = normalise(test.name)
    runs = {test.result[i : i + 3] for i in range(len(test.result) - 2)}
    runs = {run for run in runs if run.isalpha() and run not in test.name}
    return any(
        name in normalise(statement) and any(run in statement for run in runs)
        for statement in statements(text)
    )


def _names_finding(test: DocumentedTest, text: str, complaint: str) -> bool:
    """Whether a history of the present illness lists what imaging or a biopsy found, without verb
    or test: '..., myocardial thickening, ...'. Patients tell complaints in such phrases too, so two
    content words must be the result's, and none the complaint's."""
    if test.category == "laboratory":
        return False
    words = _telling_words(test.result, test.name, complaint)
    return any(len(words & phrase) >= 2 for phrase in _phrases_of_history(text))


@lru_cache(maxsize=512)
def _phrases_of_history(text: str) -> tuple[frozenset[str], ...]:
    """The content words of each item of a list under 'History of Present Illness'."""
    return tuple(
        _content_words(phrase)
        for line in text.splitlines()
        if (history := _PRESENT_ILLNESS.match(line))
        for phrase in _PHRASE_END.split(line[history.end() :])
        if len(phrase.split()) <= _LONGEST_PHRASE and not _PREPOSITION.search(phrase)
    )


@lru_cache(maxsize=512)
def _compared_statements(
    text: str,
) -> tuple[tuple[frozenset[str], frozenset[str], frozenset[str]], ...]:
    """Each statement's words as they are compared, its content words and its numbers."""
    return tuple(
        (
            frozenset(normalise(_ELISION.sub(" ", statement)).split()),
            _content_words(statement),
            frozenset(numbers_of(statement)),
        )
        for statement in statements(text)
    )


def same_test(name: str, second: str) -> bool:
    """Whether two names may be of one test: equal, or of one kind and not of two regions."""
    a, b = profile(name), profile(second)
    return normalise(name) == normalise(second) or (bool(a.kinds & b.kinds) and _same_place(a, b))


def _same_place(a: Profile, b: Profile) -> bool:
    return not a.regions or not b.regions or bool(a.regions & b.regions)


@lru_cache(maxsize=512)
def _findings(text: str) -> tuple[tuple[frozenset[str], tuple[str, ...]], ...]:
    """Of every sentence with a verb of finding that names tests: its content words, and the
    tests."""
    return tuple(
        (_content_words(sentence) - _content_words(" ".join(names)), names)
        for sentence in statements(text)
        if FINDING.search(sentence) and (names := named_tests(sentence))
    )


@lru_cache(maxsize=512)
def _content_words(text: str) -> frozenset[str]:
    """The words of five letters and more that tell something, by their first six letters."""
    words = re.findall(r"[^\W\d_]{5,}", text.casefold())
    return frozenset(singular(word)[:6] for word in words if word not in _COMMON)


@lru_cache(maxsize=512)
def _telling_words(result: str, name: str, complaint: str) -> frozenset[str]:
    """The content words of a result that neither its test's name nor the complaint has."""
    return _content_words(result) - _content_words(name) - _content_words(complaint)


def _beside(name: str, line: str, plain: str) -> bool:
    """Whether a value of `line` stands right after the test's name ('hemoglobin was 9.1', 'HIV test
    was positive'), or its outcome before what it looks for ('positive for HIV')."""
    name = plain_text(name)
    # Initials of one letter stand beside any number.
    if sum(map(str.isalpha, name)) < 2:
        return False
    sought = _NOUN_OF_TEST.sub("", name)
    # Both ways hold it; a text without it, as most are, is done here.
    if sought not in plain:
        return False
    statuses = re.findall(r"\b(?:positive|negative|reactive|elevated|low|high|normal)\b", line)[:1]
    if any(re.search(rf"\b{status} for {re.escape(sought)}\b", plain) for status in statuses):
        return True
    pattern = rf"\b{re.escape(name)}\b[^.;\n]{{0,25}}?"
    return name in plain and any(
        re.search(rf"{pattern}(?<![\d.]){re.escape(value)}(?![\d.]*\d)", plain)
        # The first value alone: later ones of a line are its reference range.
        for value in (*numbers_of(line)[:1], *statuses)
    )
