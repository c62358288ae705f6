"""The judge that needs no model and no key."""

import re

from medaction.envs.make_oracle import oracle_of
from medaction.envs.mentions import named_tests
from medaction.envs.oracle import Encode, Oracle
from medaction.envs.orders import names_no_test, single_tests
from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.diagnoses import likeness
from medaction.evaluation.judge_replies import MOST_ITEMS
from medaction.evaluation.judges import ComparedTests
from medaction.evaluation.protocol import NOTHING_MORE, Protocol, Requested, final_answer
from medaction.kg.linking import Linker
from medaction.llm.usage import Usage


class OfflineJudge:
    """A test is documented when the oracle's cascade (names, synonyms, words, panels,
    encoder) finds it in the menu; a diagnosis is right by `medaction.evaluation.diagnoses`. It
    reads a conclusion, never the reasoning before it, whatever the rules."""

    def __init__(self, linker: Linker, encode: Encode):
        self.usage = Usage()
        self._linker = linker
        self._encode = encode

    async def tests(
        self, asked: Requested, environment: ClinicalEnvironment, documented: str, rules: Protocol
    ) -> ComparedTests:
        oracle = oracle_of(environment)
        # Where the tests are known one by one nothing has to be read from prose.
        names = single_tests(asked.tests) or orders_in(asked.requests)
        found = {name: _entries(oracle, name) for name in names[:MOST_ITEMS]}
        hit = set().union(*found.values())
        if asked.text != asked.requests:  # the rules take the conclusions for requests too
            # For recall alone: a test that a conclusion mentions was not ordered.
            hit.update(*(_entries(oracle, name) for name in named_tests(asked.text)))
        return ComparedTests(
            tuple((name, bool(entries)) for name, entries in found.items()),
            tuple((test.name, number in hit) for number, test in enumerate(environment.menu)),
        )

    async def diagnosis(self, said: str, environment: ClinicalEnvironment, rules: Protocol) -> bool:
        truths = (environment.diagnosis, *environment.synonyms)
        return bool(likeness(final_answer(said), truths, self._linker, self._encode))


def _entries(oracle: Oracle, name: str) -> set[int]:
    return {entry for match in oracle.matches(name) for entry in match.entries}


_BULLET = re.compile(r"^\s*(?:[-*•+]|\(?\d{1,2}[.)](?!\d))\s*")
_LABEL = re.compile(r"^\**(?P<label>[^:*]{2,80})\**\s*:\s*\**(?P<rest>.*)$")

# Words of sentences that no name of a test has, in small letters: 'IF', 'NO' and 'WAS' are names.
# 'If available' and 'while fasting' may stand behind one.
_PROSE = re.compile(
    r"^(?:i['’\s]|if\b|while\b)"
    r"|\b(?:we|he|she|it|they|his|her|their|would|should|could|can|is|are|was|were|has"
    r"|had|do|does|did|be|what|which|whether|please|nothing|none|no|other|next)\b"
)
_HEAD_OF_TABLE = re.compile(r"^\s*\|.*\|\s*\n\s*\|[\s:|-]+\|\s*$", re.MULTILINE)


def orders_in(text: str) -> tuple[str, ...]:
    """The single tests that a free text asks for, line by line; a line that is no sentence may name
    a test that no table knows, and is kept as it is.

    >>> orders_in("1. **CBC and CRP**: to look for infection\\n- Chest X-ray\\nNot required.")
    ('CBC', 'CRP', 'Chest X-ray')
    >>> orders_in("**Please:**\\n| Test | Why |\\n|---|---|\\n| TSH | fatigue |\\nIs there a rash?")
    ('TSH',)
    """
    found: list[str] = []
    for line in re.split(r"[\n;]", _HEAD_OF_TABLE.sub("", text)):
        # Of a table's row the first cell is the test, but for a number or a group before it.
        if line.lstrip().startswith("|"):
            cells = (cell for cell in line.split("|") if any(map(str.isalpha, cell)))
            line = next((cell for cell in cells if not names_no_test(cell)), "")
        bare = _BULLET.sub("", line).strip()
        labelled = _LABEL.match(bare)
        named = bare
        # 'CBC: for anemia' has its test before the colon, 'Laboratory: CBC' behind it.
        if labelled and (named_tests(labelled["label"]) or not named_tests(labelled["rest"])):
            named = labelled["label"]
        elif labelled:
            named = labelled["rest"]
        if labelled and not labelled["rest"].strip("* ") and not named_tests(bare):
            continue  # the heading of what follows
        named = named.replace("*", "").strip(" .:;")
        if not any(c.isalpha() for c in named) or NOTHING_MORE.casefold() in bare.casefold():
            continue
        parts = single_tests([named[:200]])  # prose, not a name, beyond that
        found += [
            part
            for part in parts
            if named_tests(part) or not _PROSE.search(part[:1].lower() + part[1:])
        ]
    return tuple(dict.fromkeys(found))
