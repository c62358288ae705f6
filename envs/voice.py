"""Text that speaks to somebody, where a case should tell of a patient: a part written for an actor,
a request to whoever fills in a form, the question of an exam.

The three are told by their grammar: the second person, the imperative, the question mark.
"""

import re
from collections.abc import Iterator

from medaction.words.phrases import phrase_pattern, phrase_regex
from medaction.words.sentences import LABEL, sentences

# Verbs by which a form asks to be filled in. In the imperative they open a sentence, or follow its
# condition ('If none, write ...'); 'List', 'State' and the like are nouns unless an object follows.
_ASKS = (
    "provide | write | describe | include | specify | mention | summarize | summarise | insert"
    " | ensure | explain | indicate | select | choose | remember | pretend | imagine | avoid"
)
_ASKS_FOR_AN_OBJECT = (
    "list | state | give | enter | fill | record | report | answer | use | complete | act | play"
    " | add | leave | do not | take | tell | obtain | elicit | perform | discuss | interview"
    " | read | name | respond | output | return | consider | analyze | analyse | identify"
    " | determine"
)
_OBJECTS = (
    "in | out | only | not | as | that | all | any | the | a | an | each | every | whether | it"
    " | them | none"
)
_REQUEST = re.compile(
    r"(?:if [^.,;:]{2,60}, |please |kindly |note: )*"
    # But for a status: 'Do not resuscitate'.
    r"(?:(?:start|begin) with:|think step by step\b"
    rf"|(?:(?:do not|don['’]t) (?!resuscitate|intubate)[a-z]+|{phrase_regex(_ASKS, '')}"
    rf"|{phrase_regex(_ASKS_FOR_AN_OBJECT, '')}"
    rf"(?= (?:\W?{phrase_regex(_OBJECTS, '')}\b|\"\")))(?= \S)(?! (?:by|of|to)\b))",
    re.IGNORECASE,
)
_LABEL_OF_TASK = re.compile(r"\W*(?:task|instructions?|prompt|assignment|question)\W*", re.I)
# 'This is a standardized patient scenario.'
_SCENARIO = re.compile(
    r"this is an? [^.\d]*\b(?:scenario|simulation|exercise|role[- ]play|station)\b[^.\d]*\.?$", re.I
)
# What an actor is to look like: behind a condition too.
_BEHAVE = re.compile(
    r"(?:if [^.,;:]{2,60}, )?(?:look|appear|speak|sit|lie|stay|remain|keep|hold|grimace|wince"
    r"|refuse|be) [a-z]",
    re.IGNORECASE,
)
_PLEASE = re.compile(r"(?:please|kindly)\b", re.IGNORECASE)
_ASKING_WORDS = (
    "what | which | who | whose | how | why | where | when | is | are | was | were | do | does"
    " | did | can | could | should | would | has | have"
)
_QUESTION = re.compile(
    rf"(?:^|[,:;] )(?:based on [^,?]+, )?{phrase_regex(_ASKING_WORDS, '')}\b[^?]*\?\W*$",
    re.IGNORECASE,
)
# Who takes an exam or holds it, with what is expected of them: 'The student should elicit ...'; not
# 'her doctor should have listened'. And what is said to them under their name: 'Examiner: ...'.
_ROLES_OF_AN_EXAM = (
    "student | candidate | examinee | examiner | learner | trainee | actor | standardized patient"
    " | standardised patient | simulated patient | interviewer | assessor | doctor | physician"
    " | clinician | resident"
)
_EXPECTED = (
    "should | must | shall | is expected to | are expected to | is to | are to | needs to"
    " | need to | has to | will need to | may be told"
)
_EXAM = re.compile(
    rf"(?:the |an? |all )?{phrase_regex(_ROLES_OF_AN_EXAM)}"
    rf"(?: {phrase_regex(_EXPECTED, '')}(?= (?!have\b|be\b|not have\b)[a-z])| *:)",
    re.IGNORECASE,
)
# 'It is 3 a.m. and you are the doctor on call': who is to solve the case.
_READER = re.compile(
    rf"\byou are (?:the|an?) (?:[\w-]+ ){{0,3}}?{phrase_regex(_ROLES_OF_AN_EXAM)}\b"
    r"(?!.*\d[- ]year)",
    re.IGNORECASE,
)
# In quotation marks somebody else is asked: 'She asked: "Will you help?"'.
_QUOTATION = re.compile(r"[\"“][^\"“”]*[\"”]|(?<!\w)['‘].+?['’](?!\w)")
_SECOND_PERSON = phrase_pattern("you | your | yours | yourself")
_FIRST_PERSON = re.compile(r"\bI(?:['’](?:m|ve|d)| (?:am|have|had|was|feel|felt|\w+ed))\b")
# What an actor is to do, and what he is not to know: no word of it is the patient's history.
_FORBIDS = re.compile(r"(?:do not|don['’]t|never)\b", re.IGNORECASE)
_DIRECTION = phrase_pattern(
    "you should | you must | you may | you can | you will | you need to | you are to"
    " | you are asked to | you play | you are playing | when asked | if asked"
    " | when you are asked | if you are asked"
)
# 'If the doctor asks about pets, say that you have a kitten': what is said is history.
_ANSWER = re.compile(
    r"^(?:if|when|should)\b[^,.]*\bask(?:s|ed)?\b[^,.]*, (?:you (?:should |can |may |will )?)?"
    r"(?:just )?"
    r"(?:say|tell (?:them|him|her|the \w+)|answer|reply|mention|admit|respond|state|explain)"
    r"(?: (?:yes|no)\b[,;]?)?(?: that)? (?=(?!nothing|yes|no|so|what)[a-z]+ )",
    re.IGNORECASE,
)
# 'Your portrayal should focus on the symptoms.'
_OBLIGATION = re.compile(r"\byour \w+ (?:should|must)\b", re.IGNORECASE)
_KNOWLEDGE = phrase_pattern(
    "know | known | aware | unaware | informed | told | understand | remember | sure"
)
# 'You are not aware of any specific test results': no word of it is history, as allergies are.
_INFORMED = "aware | informed | told | sure"
_UNAWARE = re.compile(
    rf"The patient is (?:not |un)(?:\w+ )?{phrase_regex(_INFORMED, '')}\b.*"
    rf"\b{phrase_regex('test | result | finding | diagnos*')}\b"
)
_NOT = re.compile(r"\b(?:not|no|never|nothing|neither|unaware)\b|n['’]t\b", re.IGNORECASE)
# 'For the patient actor: You are an 81-year-old man': the part begins behind the stage direction.
_LEAD = re.compile(
    r"^(?:[^.!?\d]{0,100}?\b(?=(?:you (?:are|have)|you['’](?:re|ve)|I am|I['’]m)\b)"
    r"|for (?:the|your) [^.!?\d:]{0,40}\b(?:actor|role)\b[^.!?\d:]{0,40}: )",
    re.I,
)
# 'You are playing the role of a 45-year-old man' is his history, but for the playing, and so is
# 'Act as a 45-year-old man'. No figure before: 'a 30-year-old woman saw a play with a 6-year-old'.
_ROLE = re.compile(
    r"^(?:you (?:are|will|should|must|play)\b[^.]*?(?= an? [\w-]*\d)"
    r"|[^.\d]{0,99}?(?:\brole|(?:\A|(?<=[,:] )|(?<=please ))(?:act|play|pretend))\b"
    r"[^.\d]{0,99}?(?= an? \d+[- ]\w+[- ]old\b)"
    r"|(?:you are|you['’]re|I am|I['’]m)(?= ))",
    re.IGNORECASE,
)

# 'They' takes the verbs of 'you', so that no verb has to be changed: of 'I' only am and was.
_PRONOUNS = {
    "yourself": "themself",
    "myself": "themself",
    "yours": "theirs",
    "mine": "theirs",
    "your": "their",
    "my": "their",
    "me": "them",
}
# Not the numeral of 'bipolar I disorder': a pronoun opens a clause or stands before a verb.
_OPENS_CLAUSE = (
    "and | but | or | when | that | because | if | as | which | where | while | so | until"
)
_VERBS_OF_I = (
    "am | was | have | had | do | did | can | could | will | would | feel | felt | get | got | go"
    " | went | take | took | think | *ed"
)
_PRONOUN_I = re.compile(
    rf"((?:^|[,;:] |\b{phrase_regex(_OPENS_CLAUSE, '')} ))I(?=['’]| [a-z])"
    rf"|\bI(?=['’](?:m|ve|d|ll)\b| {phrase_regex(_VERBS_OF_I, '')}\b)",
    re.IGNORECASE,
)
_BE = re.compile(r"\bthey(?: (?P<verb>am|was)|['’]m)\b")
_PRONOUN = phrase_pattern(" | ".join(_PRONOUNS))
# 'You' is the object of its clause at the end of it and before what no verb begins with.
_BEHIND_AN_OBJECT = (
    "to | with | in | at | on | for | from | and | or | when | because | since | as | by | of | up"
    " | out | down | very | more | again | after | before | during | about | while | that | a | an"
    " | the | some | no | any"
)
_OBJECT = re.compile(
    rf"\byou\b(?=\s*(?:[.,;:!?)]|$)|\s+{phrase_regex(_BEHIND_AN_OBJECT, '')}\b)", re.IGNORECASE
)
_AFTER_PREPOSITION = re.compile(r"\b(to|for|with|on|at|from|about|around|near|like) you\b", re.I)


def asks_reader(sentence: str) -> bool:
    """Whether a sentence asks something of its reader: a request, a question, 'you'.

    >>> asks_reader('If none, write "None."'), asks_reader("What is the diagnosis?")
    (True, True)
    >>> asks_reader('She asked: "Will you help?"'), asks_reader("List of drugs: aspirin.")
    (False, False)
    """
    # An empty quotation stays as '""', which may be the object of a request.
    words = _QUOTATION.sub('""', sentence).strip().lstrip("([*_")
    return bool(_is_request(words) or _READER.search(words) or _QUESTION.search(words))


def _is_request(words: str) -> bool:
    return any(pattern.match(words) for pattern in (_REQUEST, _PLEASE, _EXAM, _SCENARIO))


def told_of_patient(observation: str) -> tuple[str, tuple[str, ...]]:
    """An initial observation without what speaks to a reader or an actor, and those sentences.

    Lines and bullets stay; a label that has nothing left goes too.

    >>> told_of_patient("History: Cough. What is the diagnosis?\\nFamily: If none, write 'None'.")
    ('History: Cough.', ('What is the diagnosis?', "If none, write 'None'."))
    """
    lines: list[str] = []
    removed: list[str] = []
    # Once for the whole: a part for an actor speaks to 'you' in all of its lines.
    is_part = bool(_ROLE.match(_LEAD.sub("", observation.strip(), count=1)))
    for line in observation.splitlines():
        label = LABEL.match(line)[0]  # type: ignore[index]
        body = line[len(label) :]
        if is_part and body:
            text, asides = patients_part(body)
        else:
            asides = tuple(filter(asks_reader, sentences(body)))
            text = body
            for aside in asides:
                text = text.replace(aside, "")
            text = " ".join(text.split()) if asides else text
            label = "" if asides and _LABEL_OF_TASK.fullmatch(label) else label
        removed += asides
        if text.strip() or not asides:
            lines.append(label + text)
    return "\n".join(lines), tuple(removed)


def patients_part(text: str) -> tuple[str, tuple[str, ...]]:
    """An actor's part as a history in the third person, and the sentences that are directions.

    >>> patients_part("As the patient, you are a man of 50. Your foot hurts you. Do not name it.")
    ('The patient is a man of 50. Their foot hurts them.', ('Do not name it.',))
    """
    history: list[str] = []
    directions: list[str] = []
    for place, sentence in enumerate(_sentences_of_part(text)):
        # The stage direction stands before the first sentence alone.
        words = _LEAD.sub("", sentence, count=1) if place == 0 else sentence
        words = _ANSWER.sub("", _ROLE.sub("The patient is", words, count=1))
        if _is_direction(words):
            directions.append(sentence)
        else:
            # 'I' is the patient where nobody is spoken to; beside a 'you' it is who speaks.
            speaks_as_patient = _FIRST_PERSON.search(words) and not _SECOND_PERSON.search(words)
            history.append(_in_third_person(words, bool(speaks_as_patient)))
    return " ".join(history), tuple(directions)


def _sentences_of_part(text: str) -> Iterator[str]:
    """The sentences of a part; a direction that introduces a list ends before its first item."""
    for sentence in sentences(text):
        lead, mark, item = sentence.partition(": - ")
        if mark and _is_direction(lead):
            yield f"{lead}:"
            yield item
        else:
            yield sentence


def _is_direction(words: str) -> bool:
    return bool(
        _FORBIDS.match(words)
        or _DIRECTION.search(words)
        or _OBLIGATION.search(words)
        or _is_request(words)
        or _BEHAVE.match(words)
        or _speaks_of_knowledge(words)
        or _UNAWARE.match(words)
    )


def _speaks_of_knowledge(words: str) -> bool:
    """'You have not been told the diagnosis': what the actor is to know or not."""
    you = _SECOND_PERSON.search(words)
    return bool(you and _KNOWLEDGE.search(words, you.end()) and _NOT.search(words))


def _in_third_person(sentence: str, speaks_as_patient: bool) -> str:
    text = sentence
    if speaks_as_patient:
        text = _PRONOUN_I.sub(lambda match: (match[1] or "") + "they", text)
        text = _BE.sub(lambda match: "they were" if match["verb"] == "was" else "they are", text)
    # Behind a preposition and as an object 'you' is 'them'; the rest is a subject.
    text = _AFTER_PREPOSITION.sub(r"\1 them", text)
    text = _OBJECT.sub("them", text)
    text = re.sub(r"\byou\b", "they", text, flags=re.IGNORECASE)
    text = _PRONOUN.sub(lambda match: _PRONOUNS[match[0].lower()], text)
    return text[:1].upper() + text[1:]
