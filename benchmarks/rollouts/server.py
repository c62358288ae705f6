"""An OpenAI-compatible server on loopback, in a process of its own, that answers after a known time
and keeps count.

Run as: python benchmarks/rollouts/server.py MENUS.json. Prints its URL. Every reply
is one of the grammar of `medaction.envs.reply`: four turns order a test each, the fifth commits.
MENUS.json maps the number of a visit to the names of its tests. Which visit and turn a request is
about is read from its last message.

GET /log gives, for every distinct request (a hash of its body), how often it was answered, the most
that were under way, and when the first came and the last was answered.
"""

import argparse
import asyncio
import hashlib
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

TURNS = 5
CALL_S = 0.2


class Teacher:
    def __init__(self, menus: dict[str, list[str]]):
        self.menus = menus
        self.answered = Counter[str]()
        self.under_way = self.most = 0
        self.first = self.last = 0.0

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        mark = hashlib.sha256(body).hexdigest()[:16]
        self.first = self.first or time.time()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(CALL_S)
        finally:
            self.under_way -= 1
        self.answered[mark] += 1
        self.last = time.time()
        return web.json_response(_completion(self._reply(json.loads(body))))

    def _reply(self, asked: dict[str, Any]) -> str:
        told = asked["messages"][-1]["content"]
        if not (turns := re.findall(r"This is turn (\d+)", told)):
            return "A client that first asks whether anybody is there gets an answer."
        turn = int(turns[-1])
        [visit, *_] = re.findall(
            r"Visit (\d+)", "".join(str(message["content"]) for message in asked["messages"])
        )
        menu = self.menus[str(int(visit) % len(self.menus))]
        action = (
            {"final_diagnosis": "Sarcoidosis"}
            if turn >= TURNS
            else {"order_tests": [menu[turn % len(menu)]]}
        )
        ranked = [
            {"diagnosis": name, "confidence": 50 - 10 * i}
            for i, name in enumerate(("Sarcoidosis", "Tuberculosis", "Lymphoma"))
        ]
        why = f"At turn {turn} the findings are weighed against each other. " * 12
        return json.dumps(
            {
                "reasoning": why,
                "differential": ranked,
                "pivot": "Which of them is it?",
                "action": action,
            }
        )

    async def log(self, _: web.Request) -> web.Response:
        when = {"first": self.first, "last": self.last}
        return web.json_response({"answered": self.answered, "most": self.most} | when)


def _completion(text: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    used = {"prompt_tokens": 1000, "completion_tokens": 250, "total_tokens": 1250}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [choice],
        "usage": used,
    }


async def serve(teacher: Teacher) -> None:
    app = web.Application(client_max_size=2**24)
    app.add_routes(
        [web.post("/v1/chat/completions", teacher.complete), web.get("/log", teacher.log)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("menus", type=Path)
    menus = parser.parse_args().menus
    asyncio.run(serve(Teacher(json.loads(menus.read_text()))))
