"""What a case is: the report, the clinical environment built from it, and the oracle's answers
(paper, section 3.3)."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from medaction.words.errors import MedactionError
from medaction.words.tests import Category
from medaction.words.versions import json_hash

UNAVAILABLE = "UNAVAILABLE"
"""What the oracle answers when the report documents no result for the ordered test."""

ARTICLES = ("jats", "text")
"""Sources whose text is an article, also where its structured case lies beside it."""

SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BadCase(MedactionError, ValueError):
    """A case that cannot be used. `reason` is a short name that can be counted; the message says
    what to mend and where."""

    def __init__(self, reason: str, message: str, case_id: str = "", path: str = ""):
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.case_id = case_id
        self.path = path

    # By default an exception is made anew of its one message, and would lose reason and path.
    def __reduce__(self):  # so that a worker process can hand it back whole
        return BadCase, (self.reason, self.message, self.case_id, self.path)


def check_id(text: str) -> str:
    """Return `text` if it may serve as an id. Ids come from files and later name files, so no slash
    and no leading dot.

    Raises BadCase('unsafe_id').
    """
    if not SAFE_ID.fullmatch(text) or ".." in text:
        raise BadCase(
            "unsafe_id",
            f"{text[:60]!r} cannot be a case id: use letters, digits, '.', '_' and '-' only",
        )
    return text


def id_of_file(stem: str) -> str:
    """The id of a case that has none but its file's name: 'Müller discharge (2)' is
    'Muller-discharge-2'. People name their reports so. Letters that ASCII lacks leave a hash of the
    name behind.

    Raises BadCase('unsafe_id') where nothing is left, the name begins with a dot or holds '..', or
    holds what cannot be shown (half a character, a mark that turns the line).
    """
    # Half of a surrogate pair cannot be hashed or printed; a mark that turns the line hides the
    # name.
    if not stem.isprintable():
        return check_id(stem)
    # NFKD: 'ü' is a 'u' and a mark, of which ASCII keeps the letter.
    letters = unicodedata.normalize("NFKD", stem)
    ascii_letters = letters.encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_letters)[:100].strip("-")
    if any(letter.isalnum() and not letter.isascii() for letter in letters):
        # '病例1' and '报告1' are two cases.
        name = f"{name}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}".strip("-")
    return check_id(name)


@dataclass(frozen=True, slots=True)
class DocumentedTest:
    """One entry of the test menu M: a test that the report documents, with its result in the
    report's own words."""

    name: str
    category: Category
    result: str
    aliases: tuple[str, ...] = ()
    minor: str = ""
    """Minor category of Figure 7, e.g. 'hematology' or 'computed tomography'; empty: not told
    apart."""
    quote: str = ""
    """The report's passage that tells the result; empty where the source itself is structured."""


@dataclass(frozen=True, slots=True)
class StructuredCase:
    """A case that came in sections, so that no model has to extract it: o1, the menu and the true
    diagnosis."""

    initial_observation: str
    tests: tuple[DocumentedTest, ...]
    diagnosis: str
    synonyms: tuple[str, ...] = ()
    """Other names of the diagnosis; none may stand in the initial observation."""
    body_system: str = ""
    """Primary body system and disease type of Figure 6, in the words of
    `medaction.envs.composition`; empty: not told by the source."""
    disease_type: str = ""
    rare: bool | None = None
    notes: tuple[str, ...] = ()
    """What an extractor left out, and why."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a source read and did not put into the report's text: `count` tables, figures, lines,
    rows or fields, why, and the beginning of the first."""

    kind: str
    count: int
    reason: str
    sample: str = ""


def sample_of(value: Any) -> str:
    """The beginning of a value, for people to see what a loss was."""
    # Cut before the spaces go: a field may hold megabytes.
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    words = " ".join(text[:400].split())
    return words if len(words) <= 120 else f"{words[:119]}…"


Use = Literal["observation", "menu", "diagnosis", "nothing"]
"""What took a passage of a report over."""


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """How much of one kind (characters, sentences, table rows, figure captions, what a source left
    out) went to one use: `count` of it, its share of the kind (0 to 1), why nothing took it over,
    and a sample."""

    kind: str
    use: Use
    count: int
    share: float
    reason: str = ""
    sample: str = ""


@dataclass(frozen=True, slots=True)
class CaseReport:
    """A case report as it was read. `text` is all of it: every result must be found there."""

    case_id: str
    source: str
    title: str
    text: str
    path: str = ""
    licence: str | None = None
    evaluation_only: bool = False
    structured: StructuredCase | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    """What the source tells of the publication: 'pmcid', 'doi', 'journal', 'date', 'article_type';
    'patient', the heading of the section, where an article of several was parted by its sections;
    of MedR-Bench also 'summary_at', the character of `text` at which the case summary begins."""
    original: str = ""
    """The published report alone, where `text` holds a summary of it too (MedR-Bench); empty:
    `text` is the report."""
    losses: tuple[Loss, ...] = ()

    @property
    def text_is_the_case(self) -> bool:
        """Whether the text was made of the structured case itself, so that its results stand there
        whatever they are: no article was read beside it."""
        case = self.structured
        return (
            case is not None
            # An article's text was not made of the case that lies beside it.
            and self.source not in ARTICLES
            and all(test.result in self.text for test in case.tests)
        )


@dataclass(frozen=True, slots=True)
class ClinicalEnvironment:
    """E = (o1, M, f): what the clinician sees first, the menu of documented tests, and the truth; f
    is `medaction.envs.oracle`."""

    case_id: str
    source: str
    title: str
    initial_observation: str
    menu: tuple[DocumentedTest, ...]
    diagnosis: str
    synonyms: tuple[str, ...] = ()
    licence: str | None = None
    evaluation_only: bool = False
    warnings: tuple[str, ...] = ()
    body_system: str = ""
    disease_type: str = ""
    rare: bool | None = None

    @property
    def environment_id(self) -> str:
        """A hash of all that a rollout can depend on: a changed case is a new environment."""
        # Not licence, warnings or classes: they change nothing that a rollout can see.
        menu = [[test.name, test.category, test.result, test.aliases] for test in self.menu]
        content = [self.case_id, self.initial_observation, menu, self.diagnosis]
        return json_hash(content)[:16]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found (`medaction.envs.checks`). `figure` is its measure, held against
    `threshold`; `detail` names the offending passage."""

    name: str
    passed: bool
    figure: float
    threshold: float
    detail: str = ""
    required: bool = True
    """Whether a case that fails is refused; else the failure is a warning."""
    applicable: bool = True
    """False: the check had nothing to look at; it has not passed, and warns of nothing."""


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a case report: its environment or its refusal, never both, and every check
    that was made."""

    environment: ClinicalEnvironment | None
    refusal: BadCase | None
    checks: tuple[CheckResult, ...] = ()
    ledger: tuple[LedgerLine, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentedResult:
    """A menu entry that an order matched: its name and its result, verbatim."""

    test: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The oracle's answer to one ordered test. No results means UNAVAILABLE."""

    order: str
    results: tuple[DocumentedResult, ...] = ()
    method: Literal["exact", "synonym", "words", "panel", "encoder", "llm"] | None = None
    score: float | None = None

    @property
    def text(self) -> str:
        """What the clinician is told, e.g. 'D-dimer: 3.1 mg/L (reference below 0.5)' or 'D-dimer:
        UNAVAILABLE'."""
        if not self.results:
            return f"{self.order}: {UNAVAILABLE}"
        return "\n".join(f"{result.test}: {result.text}" for result in self.results)
