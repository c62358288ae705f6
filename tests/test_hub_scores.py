"""The same replies, played and scored by `medaction evaluate` and in the tools of others, each
through its own command line or client: scores and rewards are equal."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.hub import TOOLS, Replies, Scores, episodes_of, evaluated, played, player_server
from tests.conftest import SAMPLES

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

PACKAGES = {"inspect eval": "inspect_ai", "vf-eval": "verifiers", "serve-env": "openenv.core"}


class Played(NamedTuple):
    """The player's replies, where they are served, and what `medaction evaluate` says of them."""

    replies: Replies
    url: str
    expected: Scores


@pytest.fixture(scope="module", params=["scripted", "kg-targeted"])
def game(
    request: pytest.FixtureRequest, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Played]:
    replies, rewards = played(SAMPLES, request.param)
    with player_server(SAMPLES, replies) as server:
        out = tmp_path_factory.mktemp("evaluate")
        expected = evaluated(SAMPLES, server.url, rewards, out, PREFECT_API_URL=prefect_server)
        assert len(expected) == 12
        assert {values[0] for values in expected.values()} == {0, 1}, "right and wrong"
        yield Played(replies, server.url, expected)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_scores_as_evaluate_does(tool: str, game: Played, tmp_path: Path) -> None:
    if tool in PACKAGES:
        pytest.importorskip(PACKAGES[tool], reason="the extra `hub` is not installed")
    out = tmp_path / "out"
    scores = TOOLS[tool](SAMPLES, game.url, game.replies, out)
    assert scores.keys() == game.expected.keys()
    for case_id, values in game.expected.items():
        assert scores[case_id] == pytest.approx(values), case_id
    if tool == "vf-eval":
        episodes = episodes_of(out)
        assert max(len(episode["traces"]) for episode in episodes) > 1, "a trace a turn"
        for episode in episodes:
            turns = [trace["rewards"]["turn"]["score"] for trace in episode["traces"]]
            total = episode["traces"][-1]["rewards"]["episode"]["score"]
            assert sum(turns) == pytest.approx(total)
            assert all(0 <= earned <= 1 for earned in (*turns, total))
