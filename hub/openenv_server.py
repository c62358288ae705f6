"""An OpenEnv server: `medaction serve-env --cases FOLDER`. A session is an episode; whoever speaks
OpenEnv (TRL, verifiers, a client of its own) plays it turn by turn.

The reward of a step is 0 until the episode ends; then it is the episode's total, and the last
observation has each reward and what each turn earned, because a turn's worth shows only later.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Annotated, Any

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import (
    Action,
    ConcurrencyConfig,
    EnvironmentMetadata,
    Observation,
    State,
)
from pydantic import BeforeValidator, Field, validate_call
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from uvicorn.main import STARTUP_FAILURE

from medaction.envs.records import ClinicalEnvironment
from medaction.evaluation.offline_judge import OfflineJudge
from medaction.hub.episodes import Play, Scorer, world_of
from medaction.llm.usage import Message
from medaction.words.serving import AnnouncedServer

MOST_BYTES = 1_000_000
"""Bytes of one message of a client: a reply of 5,500 tokens has some 30,000."""

AT_WORK = threading.Semaphore(2)
"""Sessions whose step is computed at a time. Steps are Python's work and do not get faster beside
each other; a hundred at once kept the server from answering its clients' pings, and had two
gigabytes more in memory (measured)."""


def _text(reply: Any) -> Any:
    return json.dumps(reply) if isinstance(reply, dict) else reply


class ReplyAction(Action):
    """A model's reply, as it came, or as the object that it holds."""

    reply: Annotated[str, BeforeValidator(_text)] = Field(max_length=MOST_BYTES)


class TurnObservation(Observation):
    """What a policy is told before a turn: `messages` is the prompt; `feedback` says what came of
    the reply before, and `turn` counts from 1. The others are there when the episode is over: the
    rewards by name, what each turn earned, and what `medaction evaluate` scores."""

    messages: list[Message] = Field(default_factory=list)
    feedback: str = ""
    turn: int = 1
    outcome: str | None = None
    rewards: dict[str, float | None] = Field(default_factory=dict)
    turn_rewards: list[float] = Field(default_factory=list)
    scores: dict[str, float | None] = Field(default_factory=dict)


class EpisodeEnvironment(Environment[ReplyAction, TurnObservation, State]):
    """One session. A reset takes the case of `case_id`, else the one of `seed`, else the first."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, worlds: dict[str, ClinicalEnvironment], scorer: Scorer, t_max: int):
        super().__init__()
        self.worlds, self.scorer, self.t_max = worlds, scorer, t_max
        self.play: Play | None = None
        self.episode_id: str | None = None

    # Clients send what they like: a seed of '3' is 3, one of 1.5 is refused in plain words.
    @validate_call
    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        case_id: str | None = None,
        **_: Any,
    ) -> TurnObservation:
        # OpenEnv's clients that know no case ids send a seed.
        ids = list(self.worlds)
        case_id = ids[(seed or 0) % len(ids)] if case_id is None else case_id
        with AT_WORK:
            self.play = Play(world_of(self.worlds, case_id), self.t_max)
            self.episode_id = episode_id
            return TurnObservation(messages=self.play.prompt())

    def step(
        self, action: ReplyAction, timeout_s: float | None = None, **_: Any
    ) -> TurnObservation:
        if self.play is None or self.play.ended:
            raise RuntimeError("no episode is under way: reset first")
        play = self.play
        with AT_WORK:
            # Not around all of `step`: a judge that is a language model is waited for outside.
            feedback = play.step(action.reply)
            turn = len(play.episode.turns) + 1
            if not play.ended:
                prompt = play.prompt()
                return TurnObservation(messages=prompt, feedback=feedback, turn=turn, reward=0.0)
        # A judge elsewhere is waited for, which is no work.
        with AT_WORK if isinstance(self.scorer.judge, OfflineJudge) else nullcontext():
            score, credit = asyncio.run(self.scorer.result(play))
        return TurnObservation(
            feedback=feedback,
            turn=turn,
            done=True,
            reward=credit.total if credit else None,  # None: the judge gave no verdict
            outcome=play.episode.outcome or "failed",
            rewards=dict(credit.rewards) if credit else {},
            turn_rewards=[turn.total for turn in credit.turns] if credit else [],
            scores=score.values(),
        )

    @property
    def state(self) -> State:
        turns = len(self.play.episode.turns) if self.play else 0
        return State(episode_id=self.episode_id, step_count=turns)

    def get_metadata(self) -> EnvironmentMetadata:
        return EnvironmentMetadata(
            name="medaction",
            description=f"Multi-turn diagnosis: {len(self.worlds)} cases, {self.t_max} turns.",
        )


def application(
    worlds: dict[str, ClinicalEnvironment], scorer: Scorer, t_max: int, sessions: int, idle_s: float
) -> ASGIApp:
    """The server of these environments, for at most `sessions` clients at a time. A session that
    says nothing for `idle_s` seconds is ended."""
    make: Callable[[], EpisodeEnvironment] = partial(EpisodeEnvironment, worlds, scorer, t_max)
    make().reset()  # loads the encoder before many threads want it
    limits = ConcurrencyConfig(max_concurrent_envs=sessions, session_timeout=idle_s)
    return Bounded(
        create_fastapi_app(make, ReplyAction, TurnObservation, concurrency_config=limits)
    )


class Bounded:
    """Refuses requests of more than MOST_BYTES, or of no stated length, before they are read."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        length = headers.get(b"content-length", b"0")
        # A chunked body states no length: it would be read whole before anybody could refuse it.
        is_chunked = b"transfer-encoding" in headers
        if scope["type"] == "http" and (is_chunked or int(length) > MOST_BYTES):
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"at most 1 MB, of a stated length"})
            return
        with suppress(WebSocketDisconnect):  # OpenEnv says goodbye to clients that are gone
            await self.app(scope, receive, send)


def serve(app: ASGIApp, host: str, port: int, ready: Callable[[], None]) -> None:
    """Serve until interrupted; `ready` is called once requests are taken."""
    config = uvicorn.Config(app, host=host, port=port, log_level="warning", ws_max_size=MOST_BYTES)
    server = AnnouncedServer(config, ready)
    server.run()
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)
