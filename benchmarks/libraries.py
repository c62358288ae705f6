"""What two libraries would cost in place of our own code: `openai` with its aiohttp transport for
the call, diskcache (JSONDisk) for the call cache.

Run as: python -m benchmarks.libraries, with `openai[aiohttp]` and `diskcache` installed (or in a
folder on PYTHONPATH: uv pip install --target FOLDER httpx-aiohttp diskcache). Calls go to a server
in a process of its own, whose CPU time is not counted. A kill is a SIGKILL of a process that
stores replies; whatever it had reported as stored must be there afterwards.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from medaction.llm.call_cache import CallCache
from medaction.llm.transport import send
from tests.openai_server import Reply, openai_server

REPLY = {"text": json.dumps({"reasoning": "so " * 300}), "thinking": "", "finish_reason": "stop"}
REQUEST = {
    "messages": [{"role": "user", "content": "A painful toe. " * 400}],
    "temperature": 0.6,
    "max_tokens": 5500,
    "seed": 1,
}
IN_FLIGHT = 64
Call = Callable[[], Awaitable[Any]]


def serve() -> None:
    """In a process of its own: prints its address and answers until it is killed."""
    with openai_server(lambda asked, number: Reply(REPLY["text"])) as server:
        print(server.url, flush=True)
        time.sleep(3600)


async def cpu_ms(call: Call, calls: int) -> float:
    """CPU milliseconds of this process a call, IN_FLIGHT at once, after a few to warm up."""
    await asyncio.gather(*(call() for _ in range(20)))
    room = asyncio.Semaphore(IN_FLIGHT)

    async def one_call() -> None:
        async with room:
            await call()

    started = time.process_time()
    await asyncio.gather(*(one_call() for _ in range(calls)))
    return 1000 * (time.process_time() - started) / calls


def call_costs(url: str, calls: int) -> dict[str, float]:
    import openai

    async def ours() -> float:
        return await cpu_ms(lambda: send("openai/m", url, "none", REQUEST, 60), calls)

    async def theirs(http_client: Any) -> float:
        async with openai.AsyncOpenAI(
            base_url=url, api_key="none", max_retries=0, http_client=http_client
        ) as client:
            return await cpu_ms(lambda: client.chat.completions.create(model="m", **REQUEST), calls)

    async def with_aiohttp() -> float:
        return await theirs(openai.DefaultAioHttpClient())

    return {
        "ours (aiohttp)": asyncio.run(ours()),
        "openai, aiohttp": asyncio.run(with_aiohttp()),
        "openai, httpx": asyncio.run(theirs(None)),
    }


def opened(kind: str, folder: Path) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """(put, get) of a cache."""
    if kind == "ours":
        cache = CallCache(folder)
        return lambda key: cache.put(key, REPLY), cache.get
    import diskcache

    disk = diskcache.Cache(str(folder), disk=diskcache.JSONDisk, eviction_policy="none")
    return lambda key: disk.set(key, REPLY), disk.get


def cache_costs(kind: str, count: int) -> tuple[float, float]:
    """CPU milliseconds of a put and of a get."""
    with tempfile.TemporaryDirectory() as folder:
        put, get = opened(kind, Path(folder))
        costs = []
        for act in (put, get):
            started = time.process_time()
            for number in range(count):
                act(f"{number:064}")
            costs.append(1000 * (time.process_time() - started) / count)
    return costs[0], costs[1]


def store_until_killed(kind: str, folder: str, writer: str) -> None:
    put, _ = opened(kind, Path(folder))
    for number in range(10**9):
        put(f"{writer}-{number}")
        print(number, flush=True)


def kills(kind: str, times: int) -> tuple[int, int]:
    """(replies reported as stored, lost ones among them) over `times` kills of two writers."""
    stored = lost = 0
    with tempfile.TemporaryDirectory() as folder:
        for round_ in range(times):
            logs = [Path(folder) / f"log-{round_}-{place}" for place in (0, 1)]
            writers = [
                subprocess.Popen(
                    [sys.executable, "-m", "benchmarks.libraries", "--store", kind,
                     f"{folder}/cache", f"{round_}-{place}"],
                    stdout=logs[place].open("w"),
                )
                for place in (0, 1)
            ]  # fmt: skip
            deadline = time.monotonic() + 30
            while not all(log.stat().st_size > 200 for log in logs):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for writer in writers:
                with suppress(ProcessLookupError):
                    os.kill(writer.pid, signal.SIGKILL)
                writer.wait()
            _, get = opened(kind, Path(folder) / "cache")
            for place, log in enumerate(logs):
                numbers = log.read_text().split("\n")[:-1]
                stored += len(numbers)
                lost += sum(get(f"{round_}-{place}-{number}") != REPLY for number in numbers)
    return stored, lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--store", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve()
    if options.store:
        return store_until_killed(*options.store)
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.libraries", "--serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        for name, cost in call_costs(server.stdout.readline().strip(), options.calls).items():
            print(f"{name}: {cost:.2f} ms of CPU a call")
    finally:
        server.kill()
    for kind in ("ours", "diskcache"):
        put, get = cache_costs(kind, options.calls)
        stored, lost = kills(kind, options.kills)
        print(f"{kind}: put {put:.3f} ms, get {get:.3f} ms; {lost} of {stored} lost in the kills")


if __name__ == "__main__":
    main()
