"""PMC's list beside a bulk package, and files that are read line by line."""

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import files, read_cases
from medaction.envs.sources.package_list import entry_of, list_beside
from tests.test_envs_sources import OSCE, article

HEADER = (
    "Article File,Article Citation,AccessionID,LastUpdated (YYYY-MM-DD"
    " HH:MM:SS),PMID,License,Retracted\n"
)
GOOD = article()
UNLICENSED = GOOD[: GOOD.index("<permissions>")] + GOOD[GOOD.index("</permissions>") + 14 :]


def package(folder: Path, articles: dict[str, str], rows: str | None = None) -> Path:
    """A bulk package of the given articles by name, with its list beside it unless `rows` is
    None."""
    path = folder / "oa_comm_xml.PMC000xxxxxx.baseline.2024-06-17.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in articles.items():
            member = tarfile.TarInfo(f"PMC000xxxxxx/{name}.xml")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    if rows is not None:
        (folder / "oa_comm_xml.PMC000xxxxxx.baseline.2024-06-17.filelist.csv").write_text(
            HEADER + rows, encoding="utf-8"
        )
    return path


def row(number: int, licence: str = "CC BY", retracted: str = "no") -> str:
    return (
        f'PMC000xxxxxx/PMC{number}.xml,"Front, Oncol. 2019; 9:{number}",PMC{number},"2024-02-07'
        f' 23:35:31",3,"{licence}",{retracted}\n'
    )


def told(path: Path) -> dict[str, str | None]:
    """Case id -> licence, or the reason of the refusal."""
    return {
        case.case_id: case.licence if isinstance(case, CaseReport) else case.reason
        for case in read_cases(path)
    }


def test_a_package_has_licences_and_retractions_of_its_list(tmp_path: Path) -> None:
    articles = {"PMC1": GOOD} | dict.fromkeys(["PMC2", "PMC3", "PMC4", "PMC5"], UNLICENSED)
    rows = row(5, "NO-CC CODE") + row(4, retracted="yes") + row(2, "CC BY-NC") + row(1, "CC0")
    wanted = {
        "PMC1": "https://creativecommons.org/licenses/by/4.0/",  # an article's own word comes first
        "PMC2": "CC BY-NC",
        "PMC3": "no_licence",  # not in the list
        "PMC4": "retracted",
        "PMC5": "no_licence",
    }
    path = package(tmp_path, articles, rows)
    assert told(path) == wanted
    assert told(tmp_path) == wanted  # of a folder the list is no case of its own
    (tmp_path / "alone").mkdir()
    assert told(package(tmp_path / "alone", articles))["PMC2"] == "no_licence"


def test_a_list_that_names_an_article_twice(tmp_path: Path) -> None:
    articles = dict.fromkeys(["PMC1", "PMC2", "PMC3", "PMC4"], UNLICENSED)
    twice = (
        row(1, retracted="yes") + row(1),
        row(2) + row(2, retracted="yes"),
        row(3, "CC BY") + row(3, "CC0"),
        row(4, "CC0") + row(4, "CC0"),
    )
    assert told(package(tmp_path, articles, "".join(twice))) == {
        "PMC1": "retracted",
        "PMC2": "retracted",
        "PMC3": "no_licence",
        "PMC4": "CC0",
    }


def test_the_member_that_its_list_retracts_is_named(tmp_path: Path) -> None:
    (bad,) = read_cases(package(tmp_path, {"PMC4": GOOD}, row(4, retracted="yes")))
    assert isinstance(bad, BadCase)
    assert "PMC4.xml" in bad.message
    assert bad.path.endswith(".tar.gz!PMC000xxxxxx/PMC4.xml")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("PMC000xxxxxx/PMC1.xml,x,PMC1\n", "line 2"),
        (row(1) + row(2).replace("PMC2,", "../2,"), "line 3"),
        (row(10**20), "line 2"),
        ('"' + "x" * 200_000, "line 2"),
        ("".join(row(number, f"licence {number}") for number in range(5000)), "licences"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_and_the_package_waits(
    rows: str, line: str, tmp_path: Path
) -> None:
    (bad,) = read_cases(package(tmp_path, {"PMC1": GOOD}, rows))
    assert isinstance(bad, BadCase)
    assert bad.reason == "bad_list"
    assert ".filelist.csv" in bad.message
    assert line in bad.message


def test_a_list_without_its_columns_or_that_leads_out_is_refused(tmp_path: Path) -> None:
    path = package(tmp_path, {"PMC1": GOOD}, "")
    beside = next(tmp_path.glob("*.csv"))
    beside.write_text("a,b\n1,2\n", encoding="utf-8")
    assert told(path) == {"": "bad_list"}
    beside.unlink()
    beside.symlink_to("/etc/passwd")
    assert told(path) == {"": "outside_folder"}


@pytest.mark.long
def test_a_list_of_many_articles_takes_little_memory(tmp_path: Path) -> None:
    path = package(tmp_path, {}, "".join(row(number) for number in range(1, 60_001)))
    tracemalloc.start()
    listed = list_beside(path)
    size, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert entry_of(listed, "PMC60000") == ("CC BY", False)
    assert entry_of(listed, "PMC60001") == entry_of(listed, "PMC") == ("", False)
    assert size < 60_000 * 120
    assert most < 60_000 * 200


# --- lines ------------------------------------------------------------------------------


def test_a_line_that_is_no_text_or_without_end_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = json.dumps(OSCE).encode()
    separators = json.dumps(
        OSCE | {"x": "a\u2028b\x85c"}, ensure_ascii=False
    ).encode()  # ends of lines to others, not here
    lines = [
        b"\xef\xbb\xbf" + good,
        b"\xff" + good,
        b'{"a": "' + b"x" * 2**23 + b'"}',
        b"",
        b'{"a": "\\u0000"}',
        separators + b"\r",
    ]
    (tmp_path / "cases.jsonl").write_bytes(b"\n".join([*lines, good]))
    monkeypatch.setattr(files.read_lines, "__defaults__", (10_000,))
    found = list(read_cases(tmp_path / "cases.jsonl"))
    assert [case.reason if isinstance(case, BadCase) else case.case_id for case in found] == [
        "agentclinic-0000",
        "bad_encoding",
        "too_large",
        "bad_json",
        "agentclinic-0005",
        "agentclinic-0006",
    ]
    assert [case.message.split(" ", 1)[0] for case in found if isinstance(case, BadCase)] == [
        "cases.jsonl"
    ] * 3


@pytest.mark.long
def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    peaks = []
    for count in (100, 100, 1000):  # once for what is loaded at first use
        path = tmp_path / f"{count}.jsonl"
        path.write_text(f"{json.dumps(OSCE)}\n" * count, encoding="utf-8")
        tracemalloc.start()
        assert sum(isinstance(case, CaseReport) for case in read_cases(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 900 * 1000  # the ids seen, not the rows (3,600 characters each)
