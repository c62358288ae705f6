"""PMC's bulk packages: articles in a .tar.gz, read one after the other as they come. Nothing is
unpacked to disk.

A package is untrusted: member names are never used as paths, links and devices are never followed,
and what unpacks to much more than it is, or holds much but no articles, is left unread.
"""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from medaction.envs.records import BadCase, CaseReport, check_id
from medaction.envs.sources import jats
from medaction.envs.sources.package_list import PackageList, entry_of, list_beside

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")

FREE_BYTES = 64 * 2**20
MAX_RATIO = 50
"""An archive may unpack to FREE_BYTES and MAX_RATIO times what was read of it. Articles pack 3 to 6
times, zeros 1000 times."""

MAX_HEADER_BYTES = 2**20
"""Bound on what stands between two members: headers, long names, padding."""

_READ_AND_REFUSED = ("not_a_case_report", "retracted", "empty_body")
FREE_MEMBERS = 10_000
MAX_OTHERS = 100
"""An archive may hold FREE_MEMBERS and MAX_OTHERS times as many other members (figures, folders) as
articles."""


def read(path: Path, any_article: bool = False) -> Iterator[CaseReport | BadCase]:
    """The articles (*.xml, *.nxml) of a gzipped tar archive in its order; memory does not grow with
    their number.

    Of the list beside the package (`package_list`) an article has its licence, where it names none
    itself, and its retraction. What is wrong with a member is yielded as BadCase and the others go
    on. A broken archive ends with BadCase('bad_archive'
    | 'archive_bomb') after the cases that stand before the fault.
    """
    # All in one try: the cases before a fault are handed out already, the fault comes as the last.
    try:
        if not path.is_file():  # a pipe would hold the reader up
            raise BadCase("unreadable", f"{path.name} is no plain file")
        listed = list_beside(path)
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unpacked:
            counter = _Counter(unpacked, packed, path.name)
            counter.allow(MAX_HEADER_BYTES)
            # 'r|': a stream, never sought in: a package of gigabytes passes through.
            with tarfile.open(fileobj=counter, mode="r|") as archive:  # type: ignore[call-overload]
                yield from _articles(archive, counter, path, any_article, listed)
    except BadCase as bad:
        yield BadCase(bad.reason, bad.message, bad.case_id, bad.path or str(path))
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        message = f"{path.name} is broken off or damaged: {error}; fetch it anew"
        yield BadCase("bad_archive", message, path=str(path))
    except OSError as error:
        yield BadCase("unreadable", f"{path.name}: {error.strerror or error}", path=str(path))


def _articles(
    archive: tarfile.TarFile,
    counter: "_Counter",
    path: Path,
    any_article: bool,
    listed: PackageList,
) -> Iterator[CaseReport | BadCase]:
    articles = others = 0
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # tarfile would keep every member
        place = f"{path}!{member.name[:300]}"
        name = f"{member.name[:300]} in {path.name}"
        try:
            # What this member may take, and the header of the next one.
            counter.allow(member.size + MAX_HEADER_BYTES)
            _refuse_unsafe(member, name)
            if member.isreg() and member.name.lower().endswith(jats.JATS_SUFFIXES):
                yield from _article(archive, member, name, place, any_article, listed)
                articles += 1
            else:
                others += 1
        except BadCase as bad:
            # An article that is read and refused is no ballast: most of a package is research.
            articles += bad.reason in _READ_AND_REFUSED
            others += bad.reason not in _READ_AND_REFUSED
            case_id = bad.case_id or PurePosixPath(member.name).stem[:100]
            yield BadCase(bad.reason, bad.message, case_id, bad.path or place)
        # Others cost time without being a case: a bound on them, beside that on bytes.
        if others > FREE_MEMBERS + MAX_OTHERS * articles:
            message = f"{path.name}: {others:,} members and {articles:,} articles"
            raise BadCase("archive_bomb", message)
        _skip(archive, member, counter)
    _refuse_rest(archive, counter, path)


def _refuse_unsafe(member: tarfile.TarInfo, name: str) -> None:
    """Raises BadCase('unsafe_member' | 'too_large')."""
    # Windows' separators and drives too: the package may have been made there.
    parts = PurePosixPath(member.name.replace("\\", "/")).parts
    if not parts or parts[0] == "/" or ".." in parts or parts[0].endswith(":"):
        raise BadCase("unsafe_member", f"{name}: the member's path leads out of the archive")
    # A sparse file has a small body and any size.
    if not (member.isreg() or member.isdir()) or member.issparse():
        fault = "the member is a link, a device or a sparse file; only plain files are read"
        raise BadCase("unsafe_member", f"{name}: {fault}")
    if member.size > jats.MAX_ARTICLE_BYTES and member.name.lower().endswith(jats.JATS_SUFFIXES):
        message = (
            f"{name}: the member has {member.size / 2**20:.0f} MB, at most"
            f" {jats.MAX_ARTICLE_BYTES / 2**20:.0f} are read"
        )
        raise BadCase("too_large", message)


def _article(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    name: str,
    place: str,
    any_article: bool,
    listed: PackageList,
) -> Iterator[CaseReport]:
    """The member as a case, or one a patient. Its id is the article's PMCID, else the member's own
    name: packages name files as they like."""
    file = archive.extractfile(member)
    assert file is not None  # it is a plain file
    article = jats.parse(file.read(), name)
    # The article's own id first: a member is named as its packer liked.
    case_id = jats.pmcid_of(article) or check_id(PurePosixPath(member.name).stem)
    licence, retracted = entry_of(listed, case_id)
    try:
        if retracted:
            message = f"{name}: the list beside the package marks the article as retracted"
            raise BadCase("retracted", message)
        yield from jats.reports_of_article(
            article, case_id, name, place, any_article, licence=licence or None
        )
    except BadCase as bad:
        raise BadCase(bad.reason, bad.message, case_id, place) from bad


def _skip(archive: tarfile.TarFile, member: tarfile.TarInfo, counter: "_Counter") -> None:
    """Pass over what is left of a member in small steps, so that what comes next is a header and
    can be bounded as one."""
    stream: Any = archive.fileobj
    end = member.offset_data + (member.size if member.isreg() and not member.issparse() else 0)
    while stream.tell() < end:
        if not stream.read(min(2**20, end - stream.tell())):
            message = f"{counter.name} breaks off in {member.name[:300]}; fetch it anew"
            raise BadCase("bad_archive", message)
    counter.allow(MAX_HEADER_BYTES)


def _refuse_rest(archive: tarfile.TarFile, counter: "_Counter", path: Path) -> None:
    """Read to the end, where gzip's checksum is. tarfile takes a damaged header for the end. Raises
    BadCase('bad_archive')."""
    stream: Any = archive.fileobj
    counter.allow(MAX_HEADER_BYTES)
    # Zeros pad a tar to its block size.
    while data := stream.read(2**16):
        if data.strip(b"\0"):
            message = f"{path.name} is damaged: what follows is no member; fetch it anew"
            raise BadCase("bad_archive", message)


class _Counter:
    """The unpacked bytes as tarfile reads them, with the two bounds that make a bomb harmless."""

    def __init__(self, unpacked: gzip.GzipFile, packed: IO[bytes], name: str):
        self.unpacked, self.packed, self.name = unpacked, packed, name
        self.count = self.allowed = 0

    def allow(self, more: int) -> None:
        """Let so many more bytes through from here on."""
        self.allowed = self.count + more

    def read(self, size: int) -> bytes:
        data = self.unpacked.read(size)
        self.count += len(data)
        # By the packed bytes read so far, so that the bound holds at any moment.
        if self.count > FREE_BYTES + MAX_RATIO * self.packed.tell():
            times = self.count / max(1, self.packed.tell())
            message = f"{self.name} unpacks to {times:.0f} times its size; the rest is not read"
            raise BadCase("archive_bomb", message)
        if self.count > self.allowed:
            message = f"{self.name}: a member's header is larger than {MAX_HEADER_BYTES:,} bytes"
            raise BadCase("archive_bomb", message)
        return data
