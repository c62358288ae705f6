"""One client of the benchmark, in a process of its own: plays CASES x TURNS dependent calls, and
prints what it took as JSON.

Run as: python benchmarks/rollouts/play.py NAME WORK.json URL A peer is asked for the calls alone:
five dependent turns a rollout, the chat so far as the prompt, 64 under way. `engine` is this
project's own: environment, prompts, parsing, oracle, limits, call cache and store included.
"""

import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path

TURNS, IN_FLIGHT = 5, 64


def prompts(work: dict, visit: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": work["system"]},
        {"role": "user", "content": f"Visit {visit}. {work['observation']}"},
    ]


def turn_of(asked: list[dict[str, str]], number: int) -> list[dict[str, str]]:
    return [*asked, {"role": "user", "content": f"This is turn {number} of at most {TURNS}."}]


async def dependent(work: dict, ask) -> None:
    """All rollouts at once, with at most 64 calls under way."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def play(visit: int) -> None:
        asked = prompts(work, visit)
        for number in range(1, TURNS + 1):
            asked = turn_of(asked, number)
            async with places:
                reply = await ask(asked, visit)
            json.loads(reply)
            asked = [*asked, {"role": "assistant", "content": reply}]

    await asyncio.gather(*(play(visit) for visit in range(work["cases"])))


def aiohttp_(work: dict, url: str):
    import aiohttp

    async def run() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def ask(asked, visit):
                body = {
                    "model": "bench",
                    "messages": asked,
                    "seed": visit,
                    "response_format": work["format"],
                }
                async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                    return (await answer.json())["choices"][0]["message"]["content"]

            await dependent(work, ask)

    return lambda: asyncio.run(run())


def litellm_(work: dict, url: str):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    async def ask(asked, visit):
        answer = await litellm.acompletion(
            model="openai/bench",
            api_base=f"{url}/v1",
            api_key="none",
            messages=asked,
            seed=visit,
            response_format=work["format"],
        )
        return answer.choices[0].message.content

    return lambda: asyncio.run(dependent(work, ask))


def inspect_ai_(work: dict, url: str):
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        GenerateConfig,
        get_model,
    )

    kinds = {
        "system": ChatMessageSystem,
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
    }

    async def run() -> None:
        config = GenerateConfig(max_connections=IN_FLIGHT)
        model = get_model(
            "openai/bench", base_url=f"{url}/v1", api_key="none", responses_api=False, config=config
        )

        async def ask(asked, visit):
            answer = await model.generate(
                [kinds[m["role"]](content=m["content"]) for m in asked],
                config=GenerateConfig(seed=visit),
            )
            return answer.completion

        await dependent(work, ask)

    return lambda: asyncio.run(run())


def curator_(work: dict, url: str):
    """Curator has no dependent turns in parallel: five passes, one a turn, each over all rollouts,
    as its users do."""
    os.environ |= {
        "CURATOR_CACHE_DIR": str(Path(work["folder"]) / "curator"),
        "TELEMETRY_ENABLED": "false",
    }
    os.environ |= {
        "CURATOR_DISABLE_CACHE": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_API_KEY": "none",
    }
    from bespokelabs import curator

    limits = {
        "max_requests_per_minute": 10**6,
        "max_tokens_per_minute": 10**9,
        "max_concurrent_requests": IN_FLIGHT,
    }
    known = {"in_mtok_cost": 0, "out_mtok_cost": 0, "base_url": f"{url}/v1", "api_key": "none"}

    class Turn(curator.LLM):
        def prompt(self, row):
            return json.loads(row["asked"])

        def parse(self, row, reply):
            return {"asked": row["asked"], "reply": reply}

    def run() -> None:
        chats = [prompts(work, visit) for visit in range(work["cases"])]
        for number in range(1, TURNS + 1):
            chats = [turn_of(asked, number) for asked in chats]
            model = Turn(
                model_name="openai/bench", backend="litellm", backend_params=limits | known
            )
            found = model([{"asked": json.dumps(asked)} for asked in chats])
            rows = getattr(found, "dataset", found)
            chats = [
                [*json.loads(row["asked"]), {"role": "assistant", "content": row["reply"]}]
                for row in rows
            ]

    return run


def distilabel_(work: dict, url: str):
    """Five generation steps of one pipeline in a row; each batch has as many rows as calls may be
    under way."""
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(Path(work["folder"]) / "datasets"),
    }
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import ChatGeneration
    from distilabel_steps import AskNext

    def run() -> None:
        with Pipeline("bench", cache_dir=str(Path(work["folder"]) / "distilabel")) as pipeline:
            chats = [turn_of(prompts(work, visit), 1) for visit in range(work["cases"])]
            last = LoadDataFromDicts(
                data=[{"messages": chat, "number": 1} for chat in chats], batch_size=IN_FLIGHT
            )
            for number in range(1, TURNS + 1):
                model = OpenAILLM(
                    model="bench",
                    base_url=f"{url}/v1",
                    api_key="none",
                    generation_kwargs={"max_new_tokens": 5500},
                )
                chat = ChatGeneration(name=f"turn_{number}", llm=model, input_batch_size=IN_FLIGHT)
                last.connect(chat)
                last = chat
                if number < TURNS:
                    last = AskNext(name=f"next_{number}", input_batch_size=IN_FLIGHT)
                    chat.connect(last)
        found = pipeline.run(use_cache=False)
        assert len(found["default"]["train"]) == work["cases"]

    return run


def engine_(work: dict, url: str):
    from medaction.clinicians.make import make_clinician
    from medaction.envs.build import build_environment
    from medaction.envs.oracle import Oracle
    from medaction.envs.sources import read_cases
    from medaction.kg.encoder import load_encoder
    from medaction.kg.tests_table import aliases_of_tests
    from medaction.llm.calls import CallSettings, configure
    from medaction.llm.teacher import Teacher
    from medaction.trajectories.rollout import play_tree
    from medaction.trajectories.store import BuiltCase, Store
    from medaction.trajectories.tree import TreePlan

    folder = Path(work["folder"])
    encoder = load_encoder()
    aliases = aliases_of_tests()

    async def run() -> None:
        configure(CallSettings("on", folder / "calls"))
        names = [f"t{i}" for i in range(work["teachers"])]
        made = [
            Teacher(
                name=name,
                model="openai/bench",
                api_base=f"{url}/v1",
                free_form=0,
                in_flight=IN_FLIGHT,
            )
            for name in names
        ]
        plan = TreePlan(
            {name: name for name in names},
            work["rollouts"],
            work["launch_points"],
            work["branches"],
            TURNS,
        )
        clinicians = {teacher.name: make_clinician(teacher) for teacher in made}
        with (
            Store(folder / "trajectories.duckdb") as store,
            store.run("bench", "{}", None, {}) as run_id,
        ):
            places = asyncio.Semaphore(work["cases_at_once"])

            async def case(report) -> int:
                async with places:
                    built = build_environment(report, None, 1)
                    assert built.environment, built.refusal
                    oracle = Oracle(built.environment.menu, aliases, encoder.encode)
                    played = await play_tree(
                        built.environment, plan, (), frozenset(), clinicians, oracle
                    )
                    store.add_built_cases([BuiltCase(report, built)], "bench", run_id)
                    store.add_rollouts(
                        "rollout", report.case_id, played.trajectories, played.failures, run_id
                    )
                    return len(played.trajectories)

            print(
                sum(
                    await asyncio.gather(*(case(report) for report in read_cases(work["reports"])))
                ),
                "rollouts",
                file=sys.stderr,
            )

    return lambda: asyncio.run(run())


CLIENTS = {
    "aiohttp": aiohttp_,
    "litellm": litellm_,
    "inspect-ai": inspect_ai_,
    "bespokelabs-curator": curator_,
    "distilabel": distilabel_,
    "engine": engine_,
}


def seconds_of_cpu() -> float:
    return sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


if __name__ == "__main__":
    name, work_file, url = sys.argv[1:]
    work = json.loads(Path(work_file).read_text())
    run = CLIENTS[name](work, url)  # imports are start-up, and not counted
    started, cpu = time.monotonic(), seconds_of_cpu()
    run()
    print(json.dumps({"wall_s": time.monotonic() - started, "cpu_s": seconds_of_cpu() - cpu}))
