"""Articles by PMC id, from a real HTTP server on loopback that answers as NCBI's does, faults
included."""

import logging
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from starlette.responses import Response

from medaction.envs.records import BadCase, CaseReport
from medaction.envs.sources import pmc, read_cases
from tests.ncbi_server import EFETCH_PATH, OA_PATH, Asked, Deposit, NCBIServer, dropped, ncbi_server
from tests.test_envs_sources import article

XML = article().partition("?>")[2].partition('dtd">')[2].strip()
UNLICENSED_XML = XML[: XML.index("<permissions>")] + XML[XML.index("</permissions>") + 14 :]
ANOTHER = XML.replace(
    "<title-group>", '<article-id pub-id-type="pmcid">PMC9</article-id><title-group>'
)


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, no key, and pauses that do not hold the tests up."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in (
        "NCBI_API_KEY",
        "NCBI_EMAIL",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pmc, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pmc, "INTERVAL_S", 0.0)


def told(
    wanted: str, server: NCBIServer, monkeypatch: pytest.MonkeyPatch, **allow: bool
) -> dict[str, str]:
    """Case id -> 'read' or the reason of its refusal, in order."""
    monkeypatch.setenv("MEDACTION_NCBI_URL", server.url)
    cases = read_cases(f"pmc:{wanted}", frozenset(name.replace("_", "-") for name in allow))
    return {case.case_id: "read" if isinstance(case, CaseReport) else case.reason for case in cases}


DEPOSITS = {
    "PMC1": Deposit(XML),
    "PMC2": Deposit(UNLICENSED_XML, licence="CC BY-NC"),
    "PMC3": Deposit(XML, licence=None),
    "PMC4": Deposit(XML, retracted="yes"),
    "PMC5": Deposit(XML.replace("case-report", "research-article")),
    "PMC6": Deposit(UNLICENSED_XML, licence="none"),
}
JUDGED = {
    "PMC1": "read",
    "PMC2": "read",
    "PMC3": "not_open_access",
    "PMC4": "retracted",
    "PMC5": "not_a_case_report",
    "PMC6": "no_licence",
    "PMC7": "not_open_access",
}


@pytest.mark.usefixtures("fast")
def test_each_article_is_read_or_refused_and_a_rerun_asks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ncbi_server(DEPOSITS) as server:
        assert told(",".join(JUDGED), server, monkeypatch) == JUDGED
        asked = [(each.path, each.parameters["id"]) for each in server.asked]
        assert (EFETCH_PATH, "3") not in asked
        assert (EFETCH_PATH, "4") not in asked
        assert asked.count((OA_PATH, "PMC1")) == asked.count((EFETCH_PATH, "1")) == 1
        assert told(",".join(JUDGED), server, monkeypatch) == JUDGED
        assert len(server.asked) == len(asked)
        allowed = told("PMC5,PMC6,PMC4", server, monkeypatch, unlicensed=True, any_article=True)
        assert allowed == {"PMC5": "read", "PMC6": "read", "PMC4": "retracted"}


@pytest.mark.usefixtures("fast")
def test_an_article_has_text_licence_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with ncbi_server(DEPOSITS) as server:
        monkeypatch.setenv("MEDACTION_NCBI_URL", server.url)
        own, services = read_cases("pmc:PMC1,PMC2")
    assert isinstance(own, CaseReport)
    assert isinstance(services, CaseReport)
    assert own.licence == "https://creativecommons.org/licenses/by/4.0/"
    assert services.licence == "CC BY-NC"
    assert own.path == "pmc:PMC1"
    assert "CRP | 120 mg/L" in own.text


@pytest.mark.usefixtures("fast")
def test_a_file_of_ids_and_ids_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text(
        "# my articles\nPMC1  # the first\n\n../../etc/passwd\nPMC1\nPMC1&x=1\n12\nPMC١\nPMC2\n",
        encoding="utf-8",
    )
    with ncbi_server(DEPOSITS) as server:
        found = told(str(ids), server, monkeypatch)
        assert {each.parameters["id"] for each in server.asked} == {"PMC1", "1", "PMC2", "2"}
    bad = dict.fromkeys(["../../etc/passwd", "PMC1&x=1", "12", "PMC١"], "bad_pmcid")
    assert found == {"PMC1": "read", "PMC2": "read"} | bad
    (missing,) = read_cases("pmc:no-such-file.txt")
    assert isinstance(missing, BadCase)
    assert "no-such-file.txt" in missing.message
    with pytest.raises(BadCase, match="no_cases"):
        list(read_cases("pmc: ,"))


def status(code: int, **headers: str) -> Response:
    return Response(
        '{"error":"API rate limit exceeded"}',
        code,
        {name.replace("_", "-"): value for name, value in headers.items()},
    )


PASSING: dict[str, Callable[[], Response]] = {
    "429": lambda: status(429),
    "429 that tells when": lambda: status(429, retry_after="0"),
    "500": lambda: status(500),
    "503 that tells a date": lambda: status(503, retry_after="Thu, 01 Jan 2015 00:00:00 GMT"),
    "broken off": dropped,
    "half an answer": lambda: Response("<pmc-articleset><article>"),
    "a page": lambda: Response("<html><body>Sorry</body></html>"),
    "empty": lambda: Response(""),
    "a trouble of its own": lambda: Response('<OA><error code="internalError">later</error></OA>'),
    "another article": lambda: Response(f"<pmc-articleset>{ANOTHER}</pmc-articleset>"),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("name", PASSING)
def test_a_passing_fault_is_outlived(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ncbi_server(
        DEPOSITS, lambda asked, number: PASSING[name]() if number in (0, 1, 3, 4) else None
    ) as server:
        assert told("PMC1", server, monkeypatch) == {"PMC1": "read"}
        assert [each.path for each in server.asked] == [OA_PATH] * 3 + [EFETCH_PATH] * 3


@pytest.mark.usefixtures("fast")
def test_an_id_that_fails_is_named_not_kept_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sick = True

    def fault(asked: Asked, _number: int) -> Response | None:
        return status(500) if sick and asked.parameters["id"] in ("PMC1", "1") else None

    with ncbi_server(DEPOSITS, fault) as server:
        assert told("PMC1,PMC2", server, monkeypatch) == {"PMC1": "unreachable", "PMC2": "read"}
        assert len(server.asked) == pmc.DOWNLOAD_ATTEMPTS + 2
        sick = False
        assert told("PMC1,PMC2", server, monkeypatch) == {"PMC1": "read", "PMC2": "read"}
        assert len(server.asked) == pmc.DOWNLOAD_ATTEMPTS + 4


@pytest.mark.usefixtures("fast")
def test_no_network_is_found_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with ncbi_server({}) as server:
        pass  # gone again: nobody listens there
    start = time.monotonic()
    found = told(",".join(f"PMC{number}" for number in range(1, 101)), server, monkeypatch)
    assert set(found.values()) == {"unreachable"}
    assert len(found) == 100
    assert time.monotonic() - start < 60


@pytest.mark.usefixtures("fast")
def test_a_lasting_storm_asks_less_and_less(monkeypatch: pytest.MonkeyPatch) -> None:
    with ncbi_server(DEPOSITS, lambda asked, _: status(429)) as server:
        told("PMC1,PMC2,PMC3,PMC4,PMC5,PMC6", server, monkeypatch)
        assert len(server.asked) == pmc.MAX_UNREACHABLE * pmc.DOWNLOAD_ATTEMPTS + 3


@pytest.mark.usefixtures("fast")
def test_without_the_open_access_service_the_article_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = UNLICENSED_XML.replace(
        "</article-meta>",
        "<custom-meta-group><custom-meta><meta-name>pmc-prop-open-access</meta-name><meta-value>no</meta-value></custom-meta>"
        "</custom-meta-group></article-meta>",
    )
    retracted = XML.replace(
        "</article-meta>",
        '<related-article related-article-type="retraction-forward"/></article-meta>',
    )
    deposits = {"PMC1": Deposit(XML), "PMC2": Deposit(closed), "PMC3": Deposit(retracted)}
    with ncbi_server(
        deposits, lambda asked, _: status(410) if asked.path == OA_PATH else None
    ) as server:
        found = told("PMC1,PMC2,PMC3", server, monkeypatch)
    assert found == {"PMC1": "read", "PMC2": "not_open_access", "PMC3": "retracted"}


def test_a_wrong_mirror_is_no_verdict_on_the_article(monkeypatch: pytest.MonkeyPatch) -> None:
    with ncbi_server(DEPOSITS, lambda _asked, _number: status(404)) as server:
        assert told("PMC1", server, monkeypatch) == {"PMC1": "unreachable"}


def test_requests_are_paced_named_and_keep_the_key_out_of_addresses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with ncbi_server(DEPOSITS) as server:
        told("PMC1,PMC2", server, monkeypatch)
        slow = server.asked[:]
        server.asked.clear()
        monkeypatch.setenv("NCBI_API_KEY", "sk-CANARY-1")
        monkeypatch.setenv("NCBI_EMAIL", "me@example.org")
        told("PMC3,PMC4,PMC5,PMC6", server, monkeypatch)
    gaps = [after.at - before.at for before, after in pairwise(slow)]
    assert len(gaps) == 3
    assert min(gaps) > 0.25
    assert server.asked[-1].at - server.asked[0].at < 0.3 * len(server.asked)
    assert all(each.parameters["tool"] == "medaction" for each in slow + server.asked)
    assert all(each.parameters["email"] == "me@example.org" for each in server.asked)
    assert {
        each.parameters.get("api_key") for each in server.asked if each.path == EFETCH_PATH
    } == {"sk-CANARY-1"}
    assert not any("CANARY" in each.address for each in server.asked)
    assert "CANARY" not in caplog.text


@pytest.mark.usefixtures("fast")
def test_a_damaged_cache_file_is_asked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ncbi_server(DEPOSITS) as server:
        told("PMC1", server, monkeypatch)
        (kept,) = (tmp_path / "cache" / "medaction" / "pmc").iterdir()
        whole = kept.read_text(encoding="utf-8")
        for damaged in (
            whole[:200],
            "",
            "{}",
            '{"pmcid": "PMC1"}',
            whole.replace("PMC1", "PMC2"),
            "[" * 100_000,
        ):
            kept.write_text(damaged, encoding="utf-8")
            assert told("PMC1", server, monkeypatch) == {"PMC1": "read"}
            assert kept.read_text(encoding="utf-8") == whole
        assert [file.name for file in kept.parent.iterdir()] == ["PMC1.json"]


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BadCase, match=r"cache_unwritable.*XDG_CACHE_HOME"):
        list(read_cases("pmc:PMC1"))
