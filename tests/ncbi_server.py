"""A real HTTP server on loopback that answers as NCBI's efetch and open-access service do, faults
included."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.serving import serving

OA_PATH = "/pmc/utils/oa/oa.fcgi"
EFETCH_PATH = "/entrez/eutils/efetch.fcgi"


@dataclass(frozen=True)
class Deposit:
    """One article of the server: `xml` is the <article> element; `licence` None: not in the open
    access subset."""

    xml: str
    licence: str | None = "CC BY"
    retracted: str = "no"


@dataclass(frozen=True)
class Asked:
    path: str
    method: str
    parameters: dict[str, str]
    at: float
    address: str


Fault = Callable[[Asked, int], Response | None]
"""(request, its number from 0) -> what to answer instead, or None."""


@dataclass
class NCBIServer:
    deposits: dict[str, Deposit]
    fault: Fault
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: Request) -> Response:
        body = (await request.body()).decode()
        parameters = dict(request.query_params) | dict(parse_qsl(body))
        asked = Asked(
            request.url.path, request.method, parameters, time.monotonic(), str(request.url)
        )
        self.asked.append(asked)
        if (instead := self.fault(asked, len(self.asked) - 1)) is not None:
            return instead
        text = (
            self._record(parameters["id"])
            if request.url.path == OA_PATH
            else self._article(parameters)
        )
        return Response(text, media_type="text/xml")

    def _record(self, pmcid: str) -> str:
        deposit = self.deposits.get(pmcid)
        if deposit is None:
            found = f"<error code=\"idDoesNotExist\">identifier '{pmcid}' does not exist</error>"
        elif deposit.licence is None:
            found = (
                f"<error code=\"idIsNotOpenAccess\">identifier '{pmcid}' is not Open Access</error>"
            )
        else:
            found = (
                f'<records returned-count="1" total-count="1"><record id="{pmcid}" citation="J.'
                ' 2016; 1:1" '
                f'license="{deposit.licence}" retracted="{deposit.retracted}">'
                '<link format="tgz"'
                f' href="ftp://ftp.ncbi.nlm.nih.gov/pub/pmc/{pmcid}.tar.gz"/></record></records>'
            )
        return (
            "<OA><responseDate>2016-01-15 10:00:00</responseDate><request"
            f' id="{pmcid}">oa.fcgi</request>{found}</OA>'
        )

    def _article(self, parameters: dict[str, str]) -> str:
        assert parameters["db"] == "pmc"
        assert parameters["retmode"] == "xml"
        deposit = self.deposits.get(f"PMC{parameters['id']}")
        found = (
            deposit.xml
            if deposit
            else f'<Reply Id="{parameters["id"]}" error="The following PMCID is not available"/>'
        )
        doctype = (
            '<!DOCTYPE pmc-articleset PUBLIC "-//NLM//DTD ARTICLE SET 2.0//EN"'
            ' "https://dtd.nlm.nih.gov/ncbi/pmc/articleset.dtd">'
        )
        return f'<?xml version="1.0" ?>{doctype}<pmc-articleset>{found}</pmc-articleset>'


def dropped() -> Response:
    """An answer that breaks off: fewer bytes than announced."""

    async def half() -> object:
        yield b"<OA><records>"

    return StreamingResponse(half(), headers={"content-length": "5000"})  # type: ignore[arg-type]


@contextmanager
def ncbi_server(
    deposits: dict[str, Deposit], fault: Fault = lambda _asked, _number: None
) -> Iterator[NCBIServer]:
    """Serve `deposits` on a free port of 127.0.0.1; `url` is what MEDACTION_NCBI_URL takes."""
    ours = NCBIServer(deposits, fault)
    app = Starlette(
        routes=[
            Route(path, ours.answer, methods=["GET", "POST"]) for path in (OA_PATH, EFETCH_PATH)
        ]
    )
    with serving(app, log_level="critical") as ours.url:
        yield ours
