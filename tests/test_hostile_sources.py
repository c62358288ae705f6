"""Hostile and broken input: each is refused or made harmless within 200 MB, named, and the others
go on."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medaction.envs.records import BadCase, CaseReport, check_id
from medaction.envs.sources import archives, jats, read_cases
from tests.test_envs_sources import OSCE, STRUCTURED, article

GOOD = article()
CASE = json.dumps(STRUCTURED)
JATS_OPEN = '<article article-type="case-report"><front/><body>'


def xml(body: str, doctype: str = "") -> str:
    return f"{doctype}{JATS_OPEN}{body}</body></article>"


def many(*, text: str, megabytes: float) -> str:
    return text * int(megabytes * 2**20 / len(text))


def laughs() -> str:
    chain = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    return xml("<p>&l9;</p>", f'<!DOCTYPE article [<!ENTITY l0 "ha">{chain}]>')


def parameter_entities() -> str:
    return xml(
        "<p>&x;</p>",
        '<!DOCTYPE article [<!ENTITY % d SYSTEM "file:///etc/passwd">%d;<!ENTITY x "%d;">]>',
    )


MEASURED = {
    "assay": {"label": "CRP"},
    "value": {"quantity": {"value": "N", "unit": {"label": "mg/L"}}},
}


def packet(**fields: object) -> str:
    disease = {"disease": {"id": "OMIM:1", "label": "Stiff skin syndrome"}}
    bare = {
        "subject": {"sex": "MALE"},
        "phenotypicFeatures": [],
        "interpretations": [{"diagnosis": disease}],
    }
    return json.dumps(bare | fields)


# file name -> (its bytes, the reason of its refusal; None: it is a case; a list where it holds
# several)
FILES: dict[str, tuple[Callable[[], str | bytes], str | list[str | None] | None]] = {
    "laughs.xml": (laughs, "hostile_xml"),
    "laughs16.xml": (lambda: laughs().encode("utf-16"), "hostile_xml"),
    "laughs32.xml": (
        lambda: ('<?xml version="1.0" encoding="UCS-4"?>' + laughs()).encode("utf-32-be"),
        "hostile_xml",
    ),
    "quadratic.xml": (
        lambda: xml(
            "<p>" + "&a;" * 100_000 + "</p>",
            f'<!DOCTYPE article [<!ENTITY a "{"x" * 100_000}">]>',
        ),
        "hostile_xml",
    ),
    "external.xml": (
        lambda: xml("<p>&x;</p>", '<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        "hostile_xml",
    ),
    "parameter.xml": (parameter_entities, "hostile_xml"),
    "external-dtd.xml": (
        lambda: GOOD.replace("JATS-archivearticle1.dtd", "file:///etc/passwd"), None,
    ),
    "remote-dtd.xml": (
        lambda: GOOD.replace("JATS-archivearticle1.dtd", "http://192.0.2.1/x.dtd"), None,
    ),
    "xinclude.xml": (
        lambda: GOOD.replace(
            "<p>A man",
            '<p><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="/etc/passwd"'
            ' parse="text"/>A man',
        ),
        None,
    ),
    "large.xml": (lambda: b" " * (100 * 2**20), "too_large"),
    "json-large.json": (lambda: b"[" + b" " * (100 * 2**20), "too_large"),
    "large.jsonl": (lambda: b"{" + b" " * (100 * 2**20), "too_large"),
    "deep.xml": (lambda: xml("<sec>" * 10_000 + "</sec>" * 10_000), "bad_xml"),
    "nested-paragraphs.xml": (
        lambda: xml("<p>" * 240 + "ab\n" * 2_600_000 + "</p>" * 240), "no_licence",
    ),
    "elements.xml": (lambda: xml(many(text="<p/>", megabytes=7)), "too_large"),
    "attributes.xml": (
        lambda: xml("<p " + " ".join(f'a{n}=""' for n in range(700_000)) + "/>"), "too_large",
    ),
    "brackets.xml": (lambda: xml("<p>" + many(text="[]ab", megabytes=7) + "</p>"), "no_licence"),
    "json-deep.json": (
        lambda: '{"tests":' + "[" * 10_000 + "]" * 10_000 + ',"initial_observation":""}',
        "bad_json",
    ),
    "deeper.jsonl": (lambda: "[" * 1_000_000, "too_large"),
    "json-lists.json": (lambda: "[" + many(text="[],", megabytes=15) + "[]]", "too_large"),
    "json-wide.json": (
        lambda: json.dumps(["\U0001f600"], ensure_ascii=False) + many(text=" ", megabytes=18),
        "unknown_format",
    ),
    "json-digits.json": (
        lambda: CASE.replace('"tests": [', '"tests": [' + "9" * 1_000_000 + ", "), "bad_json",
    ),
    "json-half.json": (lambda: CASE.replace("A fever", "A \\ud800 fever"), "bad_json"),
    "utf16.xml": (lambda: GOOD.encode("utf-16"), None),
    "json-utf16.json": (lambda: CASE.encode("utf-16"), "bad_encoding"),
    "latin1.xml": (
        lambda: (
            GOOD.replace('version="1.0"', 'version="1.0" encoding="UTF-8"')
            .replace("A man", "Ménière")
            .encode("latin-1")
        ),
        "bad_xml",
    ),
    "json-latin1.json": (
        lambda: CASE.replace("A fever", "Ménière").encode("latin-1"), "bad_encoding",
    ),
    "bom.xml": (lambda: GOOD.encode("utf-8-sig"), None),
    "json-bom.json": (lambda: CASE.replace("case-1", "json-bom").encode("utf-8-sig"), None),
    "nul.xml": (lambda: GOOD.replace("A man", "A\0man"), "bad_xml"),
    "json-nul.json": (lambda: CASE.replace("A fever", "A\0fever"), "bad_encoding"),
    "empty.xml": (lambda: b"", "bad_xml"),
    "json-empty.json": (lambda: b"", "bad_json"),
    "empty.jsonl": (lambda: b"", "unknown_format"),
    "empty.tar.gz": (lambda: b"", "bad_archive"),
    "no-body.xml": (lambda: re.sub("<body>.*</body>", "", GOOD, flags=re.DOTALL), "empty_body"),
    "empty-body.xml": (
        lambda: re.sub("<body>.*</body>", "<body/>", GOOD, flags=re.DOTALL), "empty_body",
    ),
    "truncated.xml": (lambda: GOOD[: len(GOOD) // 2], "bad_xml"),
    "json-truncated.json": (lambda: CASE[: len(CASE) // 2], "bad_json"),
    "picture.xml": (lambda: b"GIF89a" + bytes(range(256)), "bad_xml"),
    "broken-line.jsonl": (lambda: "{broken\n" + json.dumps(OSCE), ["bad_json", None]),
    "row-lists.jsonl": (lambda: f"[{'[],' * 340_000}[]]\n" * 25, "too_large"),
    "row-utf16.jsonl": (lambda: json.dumps(OSCE).encode("utf-16"), "bad_encoding"),
    "packet-deep.json": (
        lambda: packet(metaData="DEEP").replace('"DEEP"', "[" * 10_000 + "]" * 10_000), "bad_json",
    ),
    "packet-wide.json": (
        lambda: packet(phenotypicFeatures=[{"type": {"label": "x"}}] * 150_000), "too_large",
    ),
    "packet-members.json": (
        lambda: '{"members": [' * 300 + packet() + "]}" * 300, "unknown_format",
    ),
    "packet-number.json": (
        lambda: packet(measurements=[MEASURED]).replace('"N"', "9" * 4000), "no_licence",
    ),
    "packet-kinds.json": (
        lambda: packet(interpretations=[{"diagnosis": {"disease": ["x"]}, "progressStatus": []}]),
        "no_diagnosis",
    ),
    "large.txt": (lambda: b"x" * (100 * 2**20), "too_large"),
    "utf16.txt": (lambda: ("A man had fever. " * 50).encode("utf-16"), "bad_encoding"),
    "latin1.md": (lambda: ("Ménière had fever. " * 50).encode("latin-1"), "bad_encoding"),
    "nul.txt": (lambda: "A man had fever.\0" * 50, "bad_encoding"),
    "blank.md": (lambda: " " * (3 * 2**20), "empty_body"),
    "hashes.md": (lambda: "#" * (3 * 2**20), "no_licence"),
    "header.txt": (
        lambda: "title:" + " \t" * 2**20 + "x\n" + "A man had fever. " * 50, "no_licence",
    ),
    "ids.txt": (lambda: "# mine\n" + "PMC1 \n" * 300_000, "unknown_format"),
    "json-good.json": (lambda: CASE.replace("case-1", "json-good"), None),
    "good.xml": (lambda: GOOD, None),
}  # fmt: skip

READ_EACH = """
import json, resource, sys, time
from pathlib import Path
from medaction.envs.records import BadCase
from medaction.envs.sources import read_cases
for file in map(Path, sys.argv[1:]):
    # Every file in a process of its own: the memory of one must not hide that of the next.
    import os
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        told = []
        try:
            for case in read_cases(file):
                bad = isinstance(case, BadCase)
                told.append([case.reason if bad else None, case.message if bad else \
case.text[:2000], case.path])
        except BadCase as bad:
            told.append([bad.reason, bad.message, bad.path])
        took, used = time.process_time() - start, \
resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(writing, json.dumps([file.name, told, took, used / 1024]).encode())
        os._exit(0)
    os.close(writing)
    print(os.fdopen(reading).read(), flush=True)
    os.waitpid(child, 0)
"""


def measured(files: list[Path]) -> dict[str, tuple[list[list[str | None]], float, float]]:
    """File name -> ([reason, message, path] of each case, seconds, MB above the imports), each read
    in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", READ_EACH, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line]
    for name, _, seconds, megabytes in rows:
        print(f"{name:28} {seconds:6.2f} s {megabytes:6.0f} MB")
    return {name: (told, seconds, megabytes) for name, told, seconds, megabytes in rows}


# --- archives ---------------------------------------------------------------------------


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data))


def packed(fill: Callable[[tarfile.TarFile], object]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT
    ) as archive:
        fill(archive)
    return buffer.getvalue()


def two_good(archive: tarfile.TarFile) -> None:
    add(archive, "PMC000xxxxxx", type=tarfile.DIRTYPE)
    add(archive, "PMC000xxxxxx/PMC1.xml", GOOD.encode())
    add(archive, "PMC000xxxxxx/PMC1.jpg", b"picture" * 1000)
    add(archive, "PMC000xxxxxx/PMC2.nxml", GOOD.encode())


def unsafe_members(archive: tarfile.TarFile) -> None:
    for name in UNSAFE_NAMES:
        add(archive, name, GOOD.encode())
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        add(archive, "link.xml", type=kind, linkname="/etc/passwd")
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        add(archive, "device.xml", type=kind)
    two_good(archive)


UNSAFE_NAMES = [
    "../PMC1.xml",
    "a/../../PMC1.xml",
    "/PMC1.xml",
    "..\\PMC1.xml",
    "C:\\PMC1.xml",
    "a/..",
]


def huge_member(archive: tarfile.TarFile) -> None:
    add(archive, "PMC9.xml", os.urandom(2**20) * 17)
    two_good(archive)


def not_utf8(archive: tarfile.TarFile) -> None:
    add(archive, "caf\udce9.xml", b"<html/>")
    two_good(archive)


def lying_size() -> bytes:
    """A header that tells of 8 GB which do not follow."""
    member = tarfile.TarInfo("PMC9.dat")
    member.size = 8 * 2**30 - 1
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + b"x" * 5000)


def damaged_header() -> bytes:
    data = bytearray(gzip.decompress(packed(two_good)))
    at = data.index(b"PMC2.nxml")
    data[at : at + 4] = b"ZZZZ"
    return gzip.compress(bytes(data))


def flipped() -> bytes:
    data = bytearray(packed(two_good))
    data[-6] ^= 0xFF  # gzip's checksum
    return bytes(data)


# name -> (bytes, reasons; None for a case)
ARCHIVES: dict[str, tuple[Callable[[], bytes], list[str | None]]] = {
    "good.tar.gz": (lambda: packed(two_good), [None, None]),
    "unsafe.tgz": (
        lambda: packed(unsafe_members), ["unsafe_member"] * (len(UNSAFE_NAMES) + 5) + [None, None],
    ),
    "huge-member.tar.gz": (lambda: packed(huge_member), ["too_large", None, None]),
    "not-utf8.tar.gz": (lambda: packed(not_utf8), ["bad_xml", None, None]),
    "truncated.tar.gz": (lambda: packed(two_good)[:-60], [None, "bad_archive"]),
    "damaged-header.tar.gz": (damaged_header, [None, "bad_archive"]),
    "flipped.tar.gz": (flipped, [None, None, "bad_archive"]),
    "lying.tar.gz": (lying_size, ["bad_archive"]),
    "zeros.tar.gz": (
        lambda: packed(lambda tar: add(tar, "a.dat", bytes(500 * 2**20))), ["archive_bomb"],
    ),
    "members.tar.gz": (
        lambda: packed(lambda tar: [add(tar, f"{n}.jpg") for n in range(30_000)]),
        ["archive_bomb"],
    ),
    "header.tar.gz": (
        lambda: packed(lambda tar: add(
            tar, "a.xml", b"x", pax_headers={"comment": "x" * 40 * 2**20},
        )),
        ["archive_bomb"],
    ),
    "no-tar.tar.gz": (lambda: gzip.compress(b"hello " * 1000), ["bad_archive"]),
    "no-gzip.tar.gz": (lambda: b"hello " * 1000, ["bad_archive"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in (FILES | ARCHIVES).items():  # type: ignore[operator]
        data = content()
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


@pytest.mark.long
def test_each_is_harmless_within_200_mb(corpus: Path) -> None:
    wanted = {
        name: reason if isinstance(reason, list) else [reason]
        for name, (_, reason) in FILES.items()
    } | {name: each for name, (_, each) in ARCHIVES.items()}
    found = measured([corpus / name for name in wanted])
    assert {name: [case[0] for case in told] for name, (told, _, _) in found.items()} == wanted
    for name, (told, seconds, megabytes) in found.items():
        assert megabytes < 200, name
        assert seconds < 60, name  # of CPU: what would not end; 0 to 4 on the machines tried
        for reason, message, path in told:
            assert "root:" not in str(message), name
            assert str(path).startswith(str(corpus / name)), name
            if reason:
                assert name in str(message), message


@pytest.mark.long
def test_members_are_named_and_nothing_is_unpacked(corpus: Path) -> None:
    before = sorted(corpus.iterdir())
    cases = list(read_cases(corpus / "unsafe.tgz"))
    for name, case in zip(
        [*UNSAFE_NAMES, *["link.xml"] * 2, *["device.xml"] * 3], cases, strict=False
    ):
        assert isinstance(case, BadCase)
        assert f"{name} in unsafe.tgz" in case.message
    assert [case.case_id for case in cases[-2:]] == ["PMC1", "PMC2"]
    assert cases[-1].path.endswith("unsafe.tgz!PMC000xxxxxx/PMC2.nxml")
    assert sorted(corpus.iterdir()) == before


@pytest.mark.long
def test_one_folder_of_all_of_it_still_gives_the_good_cases(corpus: Path) -> None:
    cases = list(read_cases(corpus))
    assert {"good", "bom", "utf16", "json-good", "json-bom", "PMC1", "PMC2"} <= {
        case.case_id for case in cases if isinstance(case, CaseReport)
    }
    assert all(str(corpus) in case.path for case in cases)


@pytest.mark.long
def test_memory_does_not_grow_with_the_members(tmp_path: Path) -> None:
    for count in (200, 4000):
        texts = [GOOD.replace("rare", f"rare {number}").encode() for number in range(count)]
        content = packed(
            lambda tar, texts=texts: [add(tar, f"PMC{n}.xml", text) for n, text in enumerate(texts)]
        )  # type: ignore[misc]
        (tmp_path / f"{count}.tar.gz").write_bytes(content)
    found = measured([tmp_path / "200.tar.gz", tmp_path / "4000.tar.gz"])
    few, many_ = found["200.tar.gz"], found["4000.tar.gz"]
    assert [len(few[0]), len(many_[0])] == [200, 4000]
    told = (
        sum(len(str(case)) for case in many_[0]) / 2**20
    )  # what the measuring process itself keeps
    assert many_[2] - few[2] < 10 + 3 * told


# --- the file system --------------------------------------------------------------------


def reasons(folder: Path) -> dict[str, str]:
    return {
        Path(case.path).name: case.reason if isinstance(case, BadCase) else "read"
        for case in read_cases(folder)
    }


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.xml").write_text(GOOD, encoding="utf-8")
    (tmp_path / "secret.json").write_text(CASE, encoding="utf-8")
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "a.xml").write_text(GOOD, encoding="utf-8")
    (folder / "b.xml").symlink_to("../secret.xml")
    (folder / "c.json").symlink_to(tmp_path / "secret.json")
    (folder / "d.xml").symlink_to("a.xml")
    (folder / "e.xml").write_text(GOOD, encoding="utf-8")
    (folder / "e.json").symlink_to("../secret.json")
    (folder / "f.xml").symlink_to("missing.xml")
    (folder / "g.xml").symlink_to("g.xml")
    found = reasons(folder)
    assert found.pop("g.xml") in ("unreadable", "outside_folder")
    assert found == {
        "a.xml": "read",
        "b.xml": "outside_folder",
        "c.json": "outside_folder",
        "d.xml": "read",
        "e.xml": "outside_folder",
        "f.xml": "unreadable",
    }


def test_pipes_and_unreadable_files_are_named_and_do_not_block(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(GOOD, encoding="utf-8")
    for name in ("b.xml", "c.json", "d.jsonl", "e.tar.gz"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "f.xml").mkdir()
    (tmp_path / "h.xml").write_text(GOOD, encoding="utf-8")
    wanted = {"a.xml": "read", "h.xml": "read"} | dict.fromkeys(
        ["b.xml", "c.json", "d.jsonl", "e.tar.gz"], "unreadable"
    )
    if os.geteuid():  # root may read everything
        (tmp_path / "g.xml").write_text(GOOD, encoding="utf-8")
        (tmp_path / "g.xml").chmod(0)
        wanted["g.xml"] = "unreadable"
    assert reasons(tmp_path) == wanted


def test_a_file_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.xml")).write_text(GOOD, encoding="utf-8")
    (bad,) = read_cases(tmp_path)
    assert isinstance(bad, BadCase)
    assert bad.reason == "unsafe_id"
    "".join([bad.message, bad.path, bad.case_id]).encode()


HOSTILE_IDS = [
    *(
        "",
        ".",
        "..",
        "../a",
        "a/../b",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "..\\a",
        "C:\\a",
        ".hidden",
        "-rf",
        "_",
        "a..b",
        "a b",
    ),
    *(
        "a\n",
        "a\0b",
        "a\tb",
        "a;rm -rf",
        "$(id)",
        "`id`",
        "a|b",
        "a'--",
        'a"b',
        "a%2e%2e",
        "<script>",
        "PMC١",
        "é",
        "a\u202eb",
    ),
    *("a" * 101, "con:", "\udce9"),
]


@pytest.mark.parametrize("case_id", HOSTILE_IDS)
def test_a_hostile_id_is_refused(case_id: str, tmp_path: Path) -> None:
    with pytest.raises(BadCase, match="unsafe_id"):
        check_id(case_id)
    (tmp_path / "any.json").write_text(
        json.dumps(STRUCTURED | {"case_id": case_id}), encoding="utf-8"
    )
    (bad,) = read_cases(tmp_path)
    assert isinstance(bad, BadCase)
    assert bad.reason in (
        "unsafe_id",
        "bad_json",
    )  # half a surrogate pair is no JSON text to begin with


def test_there_are_thirty_hostile_ids_and_more() -> None:
    assert len(set(HOSTILE_IDS)) >= 30
    assert archives.FREE_BYTES > 3 * jats.MAX_ARTICLE_BYTES


def test_articles_of_other_types_are_no_ballast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_MEMBERS", 3)

    def fill(archive: tarfile.TarFile) -> None:
        for number in range(5):
            add(archive, f"PMC{number}.nxml", article("research-article").encode())
        add(archive, "PMC9.nxml", GOOD.encode())

    (tmp_path / "package.tar.gz").write_bytes(packed(fill))
    cases = list(read_cases(tmp_path / "package.tar.gz"))
    assert [isinstance(case, CaseReport) for case in cases] == [False] * 5 + [True]
