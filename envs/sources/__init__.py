"""Where case reports come from. Each source is one file with one function: `read(path) ->
Iterator[CaseReport | BadCase]`.

A new source is such a file and a row of FORMS.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from medaction.envs.records import BadCase, CaseReport, id_of_file
from medaction.envs.sources import (
    agentclinic,
    archives,
    case_json,
    diagbench,
    jats,
    mediq,
    medrbench,
    package_list,
    phenopackets,
    pmc,
    text,
)
from medaction.envs.sources.files import inside, parse_json, read_rows, read_text

Reader = Callable[[Path], Iterator[CaseReport | BadCase]]


@dataclass(frozen=True)
class SourceForm:
    """A form of file: its name for people, the ends of its file names, and who reads it."""

    name: str
    suffixes: tuple[str, ...]
    read: Callable[..., Iterator[CaseReport | BadCase]]
    recognises: Callable[[Any], bool] | None = None
    """Of .json the file's value, of .jsonl the first row that is an object -> whether it is this
    form. None: the name is enough."""
    articles: bool = False
    """Whether `read` takes `any_article`."""


FORMS = (
    SourceForm("PMC article (JATS .xml or .nxml)", jats.JATS_SUFFIXES, jats.read, articles=True),
    SourceForm(
        "PMC bulk package (.tar.gz)", archives.ARCHIVE_SUFFIXES, archives.read, articles=True
    ),
    SourceForm("AgentClinic cases (.jsonl)", (".jsonl",), agentclinic.read, agentclinic.recognises),
    SourceForm("MediQ cases (.jsonl)", (".jsonl",), mediq.read, mediq.recognises),
    SourceForm(
        "a structured case (.json, docs/case-format.md)",
        (".json",),
        case_json.read,
        case_json.is_case,
    ),
    SourceForm(
        "structured cases, one a line (.jsonl)",
        (".jsonl",),
        case_json.read_cases_by_line,
        case_json.is_case,
    ),
    SourceForm("phenopackets (.json)", (".json",), phenopackets.read, phenopackets.recognises),
    SourceForm("MedR-Bench cases (.json)", (".json",), medrbench.read, medrbench.recognises),
    SourceForm("DiagBench cases (.json)", (".json",), diagbench.read, diagbench.recognises),
    SourceForm("plain text (.txt, .md, .html)", text.SUFFIXES, text.read),
)

PMC = "pmc:"
UNLICENSED = "unlicensed"
ANY_ARTICLE = "any-article"

_SUFFIXES = tuple(dict.fromkeys(suffix for form in FORMS for suffix in form.suffixes))
# The first row may be cut or a heading; ten bad ones are no file of cases.
_FIRST_ROWS = 10
"""Rows of a .jsonl in which its form must show."""
_NOTES = {"readme", "license", "licence", "notice", "copying", "changelog", "citation"}
"""Text files that lie in many folders and tell of the folder, not of a patient; named themselves
they are read."""


SAMPLES = "examples/cases"
"""The twelve sample cases. Their name works in every folder: where it is no path, it means the
copy that comes with the package."""


def read_cases(
    path: str | Path, allow: frozenset[str] = frozenset()
) -> Iterator[CaseReport | BadCase]:
    """All cases at a path: a file of a known form, a folder of such files (not of folders,
    but for those of PMC's cloud service: one an article, by its id), by name, or of `pmc:IDS`
    (docs/sources.md).

    A case that cannot be read is yielded as BadCase and the others go on; so are the second case
    with an id already seen ('duplicate_id'), a case without a licence ('no_licence') unless
    'unlicensed' is in `allow`, an article that is no case report ('not_a_case_report') unless
    'any-article' is, and a retracted one ('retracted') always. Files of a folder whose form is not
    read come last, one 'not_read' a form, by name. Raises BadCase('no_cases' |
    'unknown_format') when there is nothing at `path` that can be read, ValueError for other names
    in `allow`.
    """
    # Before the first case is read: a misspelt name would refuse everything one by one.
    if unknown := allow - {UNLICENSED, ANY_ARTICLE}:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"allow: {names}: only {UNLICENSED} and {ANY_ARTICLE} can be allowed")
    if str(path) == SAMPLES and not Path(SAMPLES).exists():
        path = Path(__file__).parents[2] / SAMPLES
    cases = (
        pmc.read(str(path).removeprefix(PMC), ANY_ARTICLE in allow)
        if str(path).startswith(PMC)
        else _all(Path(path), ANY_ARTICLE in allow)
    )
    ids: dict[str, int] = {}
    for case in cases:
        if isinstance(case, CaseReport):
            case = _case_or_refusal(case, ids, UNLICENSED in allow)
        yield case if isinstance(case, CaseReport) else _printable(case)


def _case_or_refusal(
    case: CaseReport, ids: dict[str, int], unlicensed: bool
) -> CaseReport | BadCase:
    """`ids`: of each case before, a hash of its text."""
    # A row's number is no name: two files of rows have each number twice, of other patients.
    is_numbered = case.source.startswith("agentclinic")
    if is_numbered and ids.get(case.case_id, hash(case.text)) != hash(case.text):
        case = replace(case, case_id=f"{case.case_id}-{id_of_file(Path(case.path).stem)}")
    if case.case_id in ids:
        message = f"a case {case.case_id!r} came before; ids must differ"
        return BadCase("duplicate_id", message, case.case_id, case.path)
    ids[case.case_id] = hash(case.text)
    if jats.says_retracted(case.title):
        return BadCase("retracted", "the title says so", case.case_id, case.path)
    if not (case.licence and case.licence.strip()) and not unlicensed:
        message = (
            f"{case.path} names no licence to use it under; allow it with --allow {UNLICENSED}"
        )
        return BadCase("no_licence", message, case.case_id, case.path)
    return replace(case, path=_text_of_page(case.path))


def _all(path: Path, any_article: bool) -> Iterator[CaseReport | BadCase]:
    try:
        if path.is_dir():
            yield from _cases_of_folder(path, any_article)
        elif path.exists():
            # A named file may raise: nothing else was asked for. In a folder it is one of many.
            yield from _reader(path, any_article)(path)
        else:
            web = "; a web address is not read, download it first" if ":/" in str(path) else ""
            raise BadCase("no_cases", f"there is nothing at {path}{web}", path=str(path))
    except OSError as error:
        raise BadCase("unreadable", f"{path}: {error.strerror}", path=str(path)) from error


def _cases_of_folder(path: Path, any_article: bool) -> Iterator[CaseReport | BadCase]:
    # PMC's cloud service puts each article into a folder of its own; other folders stay unsearched.
    folders = [path, *(entry for entry in path.iterdir() if _is_searched(entry, path))]
    # Sorted over all folders: the order of cases must not hang on the file system.
    files = sorted(
        (file for folder in folders for file in folder.iterdir() if _is_case_file(file)),
        key=_newest_first,
    )
    if not files:
        instead = "; ".join(bad.message for bad in _files_of_no_form(path))
        message = f"{path} holds no {', '.join(_SUFFIXES)} file (its folders are not searched)"
        raise BadCase("no_cases", f"{message}: {instead}" if instead else message, path=str(path))
    for file in files:
        try:
            if not inside(file, path):
                message = f"{file.name} is a link that leads out of the folder; copy the file"
                raise BadCase("outside_folder", message)
            yield from _reader(file, any_article)(file)
        except BadCase as bad:
            yield BadCase(bad.reason, bad.message, bad.case_id, bad.path or str(file))
        except OSError as error:
            yield BadCase("unreadable", f"{file.name}: {error.strerror}", path=str(file))
    yield from _files_of_no_form(path)


def _newest_first(file: Path) -> tuple[str, int, str]:
    """By name; of an article's versions the newest comes first: the others are its duplicates."""
    cloud = jats.ARTICLE_NAME.fullmatch(file.stem)
    if cloud is None:
        return str(file), 0, ""
    in_its_own = jats.ARTICLE_NAME.fullmatch(file.parent.name)
    folder = file.parents[1] if in_its_own else file.parent
    return str(folder / cloud["pmcid"]), -int(cloud["version"] or 0), str(file)


def _is_searched(entry: Path, path: Path) -> bool:
    """Of the folders in a folder of cases those that PMC's cloud service names by an article."""
    is_named = jats.ARTICLE_NAME.fullmatch(entry.name) is not None
    return is_named and entry.is_dir() and inside(entry, path)


def _holds_cases(folder: Path, depth: int = 3) -> bool:
    """Whether cases lie in a folder, or in its folders down to `depth`: by year and ward, say."""
    try:
        entries = list(folder.iterdir())
    except OSError:  # what cannot be looked into may hold some
        return True
    if any(map(_is_case_file, entries)):
        return True
    # A link may lead back up.
    folders = (entry for entry in entries if entry.is_dir() and not entry.is_symlink())
    return depth > 0 and any(_holds_cases(entry, depth - 1) for entry in folders)


def _files_of_no_form(path: Path) -> Iterator[BadCase]:
    """What else lies in a folder of cases, one entry an ending: a report that was saved in another
    form must not be missed in silence."""
    names: dict[str, list[str]] = defaultdict(list)
    # The top folder alone: PMC's own folders hold figures beside each article.
    for file in sorted(path.iterdir()):
        has_form = file.name.lower().endswith((*_SUFFIXES, package_list.SUFFIX))
        is_note = file.name.startswith(".") or file.stem.lower() in _NOTES
        if file.is_file() and not has_form and not is_note:
            names[file.suffix.lower()].append(file.name)
    folders = [
        entry.name
        for entry in sorted(path.iterdir())
        if entry.is_dir()
        and not entry.name.startswith(".")
        # Cases that nobody reads, or an article's folder without its article.
        and _holds_cases(entry) != _is_searched(entry, path)
    ]
    if folders:
        message = (
            f"{len(folders)} folders that are not read, or hold no article: "
            f"{', '.join(folders[:5])}{', ...' if len(folders) > 5 else ''}; name each by itself"
        )
        yield BadCase("not_read", message, path=str(path / folders[0]))
    for suffix, files in names.items():
        shown = ", ".join([*files[:5], *(["..."] if len(files) > 5 else [])])
        message = (
            f"{len(files)} files of a form that is not read ({suffix or 'no ending'}): {shown};"
            " export them as plain text, or take them out of the folder"
        )
        yield BadCase("not_read", message, path=str(path / f"*{suffix}"))


def _is_case_file(file: Path) -> bool:
    """A name of a known form that is not the structured part or the plain text of the article
    beside it, nor a note on the folder."""
    # '._case.json' is what macOS' archives keep beside 'case.json'.
    if not file.name.lower().endswith(_SUFFIXES) or file.name.startswith("._") or file.is_dir():
        return False
    if file.name.lower().endswith(text.SUFFIXES) and file.stem.lower() in _NOTES:
        return False
    # 'PMC1.json' beside 'PMC1.xml' is its structured part, 'PMC1.txt' its plain text. Without the
    # .xml the .json of PMC's own folder says what is missing: it alone tells of a retraction.
    is_text = file.suffix.lower() == ".txt" and jats.ARTICLE_NAME.fullmatch(file.stem)
    in_its_own = is_text and jats.ARTICLE_NAME.fullmatch(file.parent.name)
    beside = (*jats.JATS_SUFFIXES, *([".json"] if in_its_own else []))
    of_article = is_text or file.suffix.lower() == ".json"
    return not of_article or not any(file.with_suffix(suffix).exists() for suffix in beside)


def _reader(path: Path, any_article: bool) -> Reader:
    """The source that can read a file, told by its name and, where that is not enough, its content.

    Raises BadCase('unknown_format') with what is understood, and what stands in the way of looking
    into the file.
    """
    forms = [form for form in FORMS if path.name.lower().endswith(form.suffixes)]
    # Read only where names do not decide: .json and .jsonl have several forms each.
    content = _content_of_form(path) if any(form.recognises for form in forms) else None
    for form in forms:
        if form.recognises is None or form.recognises(content):
            return partial(form.read, any_article=any_article) if form.articles else form.read
    if isinstance(content, dict) and "pmcid" in content:
        message = f"{path.name} is PMC's metadata of an article whose .xml is missing; fetch it too"
        raise BadCase("unknown_format", message, path=str(path))
    names = ", ".join(form.name for form in FORMS)
    raise BadCase("unknown_format", f"{path.name} is none of: {names}", path=str(path))


def _content_of_form(path: Path) -> Any:
    """What the forms of a .json or .jsonl are told apart by; None for a .jsonl whose first rows are
    no objects."""
    if path.name.lower().endswith(".json"):
        return parse_json(read_text(path), path)
    fault: BadCase | None = None
    # `islice` counts bad rows too: a file of garbage is not read to its end.
    for _, row in islice(read_rows(path), _FIRST_ROWS):
        if isinstance(row, dict):
            return row
        # A row of bad JSON tells nothing of the form; no text, or a line without end, stops here.
        if isinstance(row, BadCase) and row.reason != "bad_json":
            fault = fault or row
    if fault:
        raise fault
    return None


def _printable(bad: BadCase) -> BadCase:
    """File names need not be UTF-8; what is stored and logged must be."""
    return BadCase(
        bad.reason, _text_of_page(bad.message), _text_of_page(bad.case_id), _text_of_page(bad.path)
    )


def _text_of_page(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
