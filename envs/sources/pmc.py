"""PubMed Central by article id: the text through the E-utilities, licence and retraction from the
open-access service.

E-utilities and their limits: Sayers, A General Introduction to the E-utilities (NCBI Bookshelf
NBK25497): 3 requests a second, 10 with a key, `tool` and `email` named. The open-access service is
one XML record an article.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import httpx
from lxml import etree

from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import jats
from medaction.envs.sources.files import read_bytes, read_text
from medaction.envs.sources.package_list import NO_LICENCE, PMCID
from medaction.words.retry_after import retry_after_s

EUTILS = "https://eutils.ncbi.nlm.nih.gov"
OPEN_ACCESS = "https://www.ncbi.nlm.nih.gov"
# NCBI's own limits: more requests get the address blocked.
INTERVAL_S, INTERVAL_WITH_KEY_S = 1 / 3, 1 / 10
DOWNLOAD_ATTEMPTS = 5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
TIMEOUT_S = 30.0
MAX_IDS = 1_000_000
MAX_UNREACHABLE = 3
"""After so many ids in a row without an answer the next ones get one attempt each, until one is
answered."""
# Errors about the article, which asking again cannot change.
_FINAL = ("idIsNotOpenAccess", "idDoesNotExist")
_GONE = (404, 410)
# Codes that pass: a time-out, a queue, too many requests.
_PASSING = (408, 425, 429)


@dataclass(frozen=True)
class _Article:
    """What PMC says of one article, as it is kept: `jats` is '' where it may not be had."""

    pmcid: str
    open_access: bool
    retracted: bool
    licence: str
    jats: str


T = TypeVar("T")
Understand = Callable[[bytes], T]


class _Unreachable(Exception):
    """No usable answer after all attempts; the message names host and fault, never the request with
    its key."""


def read(ids_or_file: str, any_article: bool = False) -> Iterator[CaseReport | BadCase]:
    """The articles of `wanted`: ids such as 'PMC123,PMC456', or a file with one id a line ('#'
    starts a comment).

    What was asked once is kept under $XDG_CACHE_HOME/medaction/pmc (else ~/.cache), one file an
    article, and not asked again. An id that cannot be used is yielded as BadCase('bad_pmcid' |
    'not_open_access' | 'retracted' | 'unreachable' | those of `medaction.envs.sources.jats`) and
    the others go on. Environment: NCBI_API_KEY and NCBI_EMAIL, MEDACTION_NCBI_URL for a mirror of
    both services. Raises BadCase('no_cases' | 'cache_unwritable' and those of `read_text`).
    """
    folder = _cache_folder()
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=True) as client:
        server = _Server(client)
        for pmcid in _ids(ids_or_file):
            try:
                article = _downloaded_article(pmcid, folder, server)
                yield from _cases_of_article(article, any_article)
            except BadCase as bad:
                yield BadCase(bad.reason, bad.message, pmcid[:100], f"pmc:{pmcid[:100]}")


def _ids(ids_or_file: str) -> list[str]:
    """Ids as they were given, without repetition; whether they are ids is judged one by one."""
    lines = ids_or_file.split(",")
    # An id that is also a file's name is an id.
    if not re.fullmatch(r"[\s,]*PMC[0-9]+[\s,]*", lines[0]) and Path(ids_or_file).is_file():
        lines = [line.partition("#")[0] for line in read_text(Path(ids_or_file)).split("\n")]
    ids = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not ids:
        path = f"pmc:{ids_or_file}"
        raise BadCase("no_cases", f"{path}: no article id, such as PMC4735908", path=path)
    return ids[:MAX_IDS]


def _downloaded_article(pmcid: str, folder: Path, server: "_Server") -> _Article:
    if not PMCID.fullmatch(pmcid):
        message = f"{pmcid[:60]!r} is no PMC article id (PMC and digits) and no file of such ids"
        raise BadCase("bad_pmcid", message)
    # Also 'not open' and 'retracted' are kept: they were asked for as well.
    if kept := _stored_article(folder / f"{pmcid}.json", pmcid):
        return kept
    try:
        article = server.article(pmcid)
    except _Unreachable as error:
        raise BadCase("unreachable", f"{pmcid}: {error}; run again to ask for it again") from error
    # Only what was answered: an unreachable id is asked for at the next run.
    _keep(folder / f"{pmcid}.json", article)
    return article


def _cases_of_article(article: _Article, any_article: bool) -> Iterator[CaseReport]:
    pmcid = article.pmcid
    if article.retracted:
        raise BadCase("retracted", f"{pmcid} is retracted")
    if not article.open_access:
        raise BadCase(
            "not_open_access",
            f"{pmcid} is not in PMC's open access subset; its text may not be used by programs",
        )
    # Parsed again from the cache: rules of reading may have changed since.
    parsed = jats.parse(article.jats.encode(), pmcid)
    yield from jats.reports_of_article(
        parsed, pmcid, pmcid, f"pmc:{pmcid}", any_article, licence=article.licence or None
    )


# --- the cache --------------------------------------------------------------------------


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "medaction" / "pmc"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def _unwritable(place: Path, error: OSError) -> BadCase:
    message = f"{place}: {error.strerror}; set XDG_CACHE_HOME"
    return BadCase("cache_unwritable", message, path=str(place))


def _stored_article(file: Path, pmcid: str) -> _Article | None:
    """The kept article; a file that is not whole counts as none and is asked for anew."""
    try:
        # Bounded: the cache's file holds the article as a JSON string, up to four times as long.
        article = _Article(**json.loads(read_bytes(file, 4 * jats.MAX_ARTICLE_BYTES)))
    except (ValueError, TypeError, RecursionError):
        return None
    # The file may be of an older form, or of another id.
    kinds = [type(value) for value in vars(article).values()]
    return article if article.pmcid == pmcid and kinds == [str, bool, bool, str, str] else None


def _keep(file: Path, article: _Article) -> None:
    """Written beside and renamed, so that no reader ever sees half a file."""
    draft = file.with_name(f"{file.stem}.{os.getpid()}.part")
    try:
        try:
            draft.write_text(json.dumps(vars(article)), encoding="utf-8")
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(file, error) from error


# --- the services -----------------------------------------------------------------------


class _Server:
    """NCBI's two services with their manners: paced, named, retried with growing pauses."""

    def __init__(self, client: httpx.Client):
        self.client = client
        mirror = os.environ.get("MEDACTION_NCBI_URL", "").rstrip("/")
        self.efetch = f"{mirror or EUTILS}/entrez/eutils/efetch.fcgi"
        self.open_access = f"{mirror or OPEN_ACCESS}/pmc/utils/oa/oa.fcgi"
        self.named = {"tool": "medaction"}
        # NCBI asks for a name and an address, to write to before it blocks.
        if email := os.environ.get("NCBI_EMAIL"):
            self.named["email"] = email
        self.key = {"api_key": key} if (key := os.environ.get("NCBI_API_KEY")) else {}
        self.interval = INTERVAL_WITH_KEY_S if self.key else INTERVAL_S
        self.next_at = 0.0
        self.unreachable = 0

    def article(self, pmcid: str) -> _Article:
        """What both services say of one article. Raises _Unreachable."""
        try:
            article = self._ask_both(pmcid)
        except _Unreachable:
            self.unreachable += 1
            raise
        self.unreachable = 0
        return article

    def _ask_both(self, pmcid: str) -> _Article:
        request = {"id": pmcid} | self.named
        # Licence and retraction first: the text of a closed article is never fetched.
        record = self._ask("GET", self.open_access, request, _open_access_record, may_be_gone=True)
        if record is not None and (record.get("code") or record.get("retracted") == "yes"):
            return _Article(pmcid, not record.get("code"), record.get("retracted") == "yes", "", "")
        request = {"db": "pmc", "id": pmcid.removeprefix("PMC"), "retmode": "xml"}
        request |= self.named | self.key
        # By POST, so that no log of addresses shows the key.
        text = self._ask("POST", self.efetch, request, partial(_article_text, pmcid=pmcid))
        if not text:
            return _Article(pmcid, False, False, "", "")
        licence = record.get("license", "") if record is not None else ""
        # Where the open-access service is no more, the article's own marks decide.
        is_open = record is not None or jats.is_open_access(jats.parse(text.encode(), pmcid))
        licence = "" if licence.casefold() in NO_LICENCE else licence
        return _Article(pmcid, is_open, False, licence, text if is_open else "")

    def _ask(
        self,
        method: str,
        url: str,
        parameters: dict[str, str],
        understand: Understand[T],
        may_be_gone: bool = False,
    ) -> T | None:
        """What `understand` makes of the answer's bytes; None where the service does not exist any
        more and that may be."""
        fault = ""
        # A dead service would hold up every id for the sum of all pauses.
        attempts = DOWNLOAD_ATTEMPTS if self.unreachable < MAX_UNREACHABLE else 1
        for attempt in range(attempts):
            self._wait_turn()
            pause = min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S)
            try:
                status, headers, data = self._send(method, url, parameters)
                if status == 200:
                    return understand(data)
                if status in _GONE and may_be_gone:
                    return None
                fault = f"answered {status}"
                # Other errors of the 400s are the request's own fault: asking again is no help.
                if status < 500 and status not in _PASSING:
                    break
                # At most a minute: a date far ahead, or a wrong clock, must not stop a run.
                if (server_pause := retry_after_s(headers)) is not None:
                    pause = min(server_pause, LONGEST_PAUSE_S)
            except httpx.HTTPError as error:
                fault = type(error).__name__
            # Half an answer or an error page with status 200 is tried again.
            except BadCase as bad:
                fault = f"answered what is no answer ({bad.reason})"
            if attempt + 1 < attempts:
                time.sleep(pause)
        raise _Unreachable(f"{httpx.URL(url).host} {fault}")

    def _wait_turn(self) -> None:
        # Paced by the clock from request to request, not by a pause after each.
        now = time.monotonic()
        time.sleep(max(0.0, self.next_at - now))
        self.next_at = max(now, self.next_at) + self.interval

    def _send(
        self, method: str, url: str, parameters: dict[str, str]
    ) -> tuple[int, httpx.Headers, bytes]:
        place = {"params": parameters} if method == "GET" else {"data": parameters}
        with self.client.stream(method, url, **place) as answer:  # type: ignore[arg-type]
            data = b""
            for chunk in answer.iter_bytes(2**16):
                data += chunk
                # Counted while it comes: a server may send without end.
                if len(data) > jats.MAX_ARTICLE_BYTES:
                    raise BadCase("too_large", "")
            return answer.status_code, answer.headers, data


def _open_access_record(data: bytes) -> dict[str, str]:
    """The attributes of the one <record>, or of the <error>, which has a 'code'. Raises BadCase
    when it is neither."""
    try:
        root = etree.fromstring(data, jats.harmless_parser())
    except etree.XMLSyntaxError as error:
        raise BadCase("bad_xml", str(error)) from error
    for path in ("error", "records/record"):
        if root.tag == "OA" and (found := root.find(path)) is not None:
            record = {str(name): str(value) for name, value in found.attrib.items()}
            if record.get("code") in (None, *_FINAL):  # other errors are the service's own troubles
                return record
    raise BadCase("bad_xml", "neither record nor a final error")


def _article_text(data: bytes, pmcid: str) -> str:
    """The answer as text where it holds the article; '' where it says that there is none. Raises
    BadCase when it is neither."""
    # Three ways in which the service says 'no such article'.
    if re.search(
        rb"<pmc-articleset[^>]*>\s*(?:<Reply\b|</pmc-articleset>)|<pmc-articleset[^>]*/>", data
    ):
        return ""
    # Another article under this id would be kept for good; '' is one that does not tell its id.
    if jats.pmcid_of(jats.parse(data, pmcid)) not in ("", pmcid):
        raise BadCase("bad_xml", "another article")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadCase("bad_encoding", str(error)) from error
