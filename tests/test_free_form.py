"""Free-form turns against a real server: what is asked, what is read from the text, and what is
refused."""

import asyncio
import json
from typing import Any

import jsonschema
import pytest

from medaction.clinicians.free_form import NoAction, names_stand_in
from medaction.clinicians.language_model import LlmClinician
from medaction.envs.episode import Episode
from medaction.envs.oracle import Oracle
from medaction.envs.prompts import PromptTooLong, messages
from medaction.envs.reply import extraction_schema, parse_extracted
from medaction.envs.turns import Hypothesis, Observation, Turn
from medaction.llm.calls import ModelRefused
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.llm.usage import Usage
from medaction.trajectories.records import RolloutSpec
from medaction.trajectories.rollout import play
from tests.openai_server import Asked, OpenAIServer, Reply, Script, openai_server
from tests.records import environment

TEXT = """Six weeks of cough and no fever. Tuberculosis would be the first thought anywhere else, \
but the \
nodes bother me…
Wait: could it be lymphoma (say 20 %)? Sarcoidosis fits both, and I now find it likely.

I won't biopsy yet. First a CBC and a chest radiograph."""
READ: dict[str, Any] = {
    "decision": "First a CBC and a chest radiograph.",
    "action": {"order_tests": ["CBC", "chest radiograph"]},
    "differential": [
        {"diagnosis": "Sarcoidosis", "confidence": 60},
        {"diagnosis": "lymphoma", "confidence": 20},
        {"diagnosis": "Tuberculosis", "confidence": 10},
    ],
    "pivot": "Sarcoidosis or lymphoma?",
}
ENDING = "The nodes settle it for me.\n\nThis is sarcoidosis, and I would treat it as such."
READ_ENDING = READ | {
    "decision": "This is sarcoidosis",
    "pivot": "The nodes settled it.",
    "action": {"final_diagnosis": "sarcoidosis"},
    "differential": [{"diagnosis": "sarcoidosis", "confidence": 95}],
}


def read(**fields: Any) -> str:
    return json.dumps(READ | fields)


def teacher(server: OpenAIServer) -> Teacher:
    return Teacher(name="t", model="openai/scripted", api_base=server.url)


def decide(script: Script, t_max: int = 8) -> tuple[Turn, list[Asked]]:
    with openai_server(script) as server:
        turn = asyncio.run(
            LlmClinician(teacher(server)).decide(Observation("Cough.", (), t_max, "free"), seed=7)
        )
        return turn, server.asked


def replies(*texts: str | Reply) -> Script:
    return lambda _, number: texts[number]


def test_the_text_is_what_is_trained_on_and_the_record_is_read_from_it() -> None:
    turn, asked = decide(
        replies(Reply(TEXT, reasoning="hm", prompt_tokens=700, completion_tokens=90), Reply(read()))
    )
    assert turn.raw == turn.reasoning == TEXT
    assert turn.tests == ("CBC", "chest radiograph")
    assert turn.differential[1] == Hypothesis("lymphoma", 20)
    assert (turn.pivot, turn.final_diagnosis, turn.thinking, turn.repaired) == (
        "Sarcoidosis or lymphoma?",
        None,
        "hm",
        False,
    )
    assert (turn.usage.calls, turn.usage.prompt_tokens, turn.usage.completion_tokens) == (
        2,
        800,
        110,
    )

    wrote, extracted = (request.body for request in asked)
    assert wrote["messages"] == messages("Cough.", (), 8, "free")
    assert "response_format" not in wrote
    assert wrote["temperature"] == 0.6
    assert extracted["temperature"] == 0.0
    assert extracted["response_format"]["json_schema"]["schema"] == extraction_schema(False)
    assert TEXT in extracted["messages"][1]["content"]
    assert "Cough." not in json.dumps(extracted["messages"]), (
        "who reads has nothing to read but the text"
    )


def test_the_last_turn_is_read_as_a_diagnosis() -> None:
    turn, asked = decide(replies(ENDING, json.dumps(READ_ENDING)), t_max=1)
    assert (turn.final_diagnosis, turn.tests) == ("sarcoidosis", ())
    assert "order_tests" not in json.dumps(asked[1].body["response_format"])


@pytest.mark.parametrize(
    ("ranked", "differential"),
    [
        ([], [("sarcoidosis", 100)]),
        ([("The nodes", 30)], [("sarcoidosis", 70), ("The nodes", 30)]),
        ([("Sarcoidosis", 80), ("The nodes", 30)], [("Sarcoidosis", 80), ("The nodes", 30)]),
    ],
)
def test_a_diagnosis_that_was_not_ranked_leads_the_differential(
    ranked: list[tuple[str, int]], differential: list[tuple[str, int]]
) -> None:
    said = READ_ENDING | {
        "differential": [{"diagnosis": name, "confidence": share} for name, share in ranked]
    }
    turn, asked = decide(replies(ENDING, json.dumps(said)))
    assert [(line.diagnosis, line.confidence) for line in turn.differential] == differential
    assert len(asked) == 2


MADE_UP = [
    (read(action={"order_tests": ["CBC", "PET-CT"]}), "action: the text does not say 'PET-CT'"),
    (
        read(action={"final_diagnosis": "Sarcoidosis"}),
        "the decision that you copied does not say 'Sarcoidosis'",
    ),
    (
        read(differential=[{"diagnosis": "Silicosis", "confidence": 5}]),
        "the text does not say 'Silicosis'",
    ),
    (
        read(decision="I order a CBC, a chest radiograph and an MRI."),
        "decision: the text does not say this",
    ),
    (read(pivot=None), "pivot"),
    (
        read(pivot="Is it the plugs or the check valve that fails in the cold?"),
        "pivot: this is not what the text is about",
    ),
    ("I read: CBC", "not one JSON object"),
]


@pytest.mark.parametrize(("faulty", "says"), MADE_UP)
def test_what_the_text_does_not_say_is_refused_and_read_again_once(faulty: str, says: str) -> None:
    turn, asked = decide(replies(TEXT, faulty, read()))
    assert turn.tests == ("CBC", "chest radiograph")
    assert turn.repaired
    assert turn.usage.calls == 3
    assert says in asked[2].body["messages"][-1]["content"]

    with pytest.raises(MalformedReply, match=says) as refused:
        decide(replies(*[TEXT, faulty, faulty] * 2))
    assert not isinstance(refused.value, NoAction)
    assert refused.value.raw == f"{TEXT}\n\n[read from it]\n{faulty}"
    assert refused.value.usage.calls == 6


NO_TURN = [
    (
        "I wonder what this is. Gout?",
        read(decision="Gout?", action={"undecided": "it only wonders"}), "it only wonders",
    ),
    (
        "I order a CBC.",
        read(decision="I order a CBC.", action={"order_tests": ["CBC"]}, differential=[]),
        "names no disease",
    ),
    (
        "Gout? I order " + ", ".join(f"marker {number}" for number in range(7)) + ".",
        read(
            decision="I order " + ", ".join(f"marker {number}" for number in range(7)),
            action={"order_tests": [f"marker {number}" for number in range(7)]},
            differential=[{"diagnosis": "Gout", "confidence": 5}],
        ),
        "orders 7 tests",
    ),
    (Reply("I think that", finish_reason="length"), None, "cut off"),
    ("", None, "empty"),
    ('{"reasoning": "x"}', None, "not running text"),
    ("<think>on and on", None, "did not end"),
    (
        "<new_results>\n- CBC: normal\n</new_results>\nGout? I order a CT.", None,
        "copies the record",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said", "says"), NO_TURN)
def test_a_text_that_is_no_turn_is_written_again_once(
    text: str | Reply, said: str | None, says: str
) -> None:
    once = [text] if said is None else [text, said]
    turn, asked = decide(replies(*once, TEXT, read()))
    assert turn.raw == TEXT
    assert turn.repaired
    assert turn.usage.calls == len(once) + 2
    rewritten = asked[len(once)].body
    assert says in rewritten["messages"][-1]["content"]
    assert "JSON" not in rewritten["messages"][-1]["content"].removeprefix(
        "This cannot be used as your turn: it is code or JSON"
    )
    assert rewritten["temperature"] == 0.6
    assert rewritten["seed"] != asked[0].body["seed"]

    with pytest.raises(NoAction, match=says) as refused:
        decide(replies(*once, *once, *once, *once))
    assert refused.value.raw == (text.text if isinstance(text, Reply) else text)
    assert refused.value.usage.calls == 4 * len(once)


def test_thinking_and_special_tokens_are_no_part_of_the_text() -> None:
    turn, _ = decide(replies(f"<think>first thoughts</think>\n{TEXT} <|im_end|>", read()))
    assert turn.thinking == "first thoughts"
    assert turn.raw == TEXT


def test_a_server_that_fails_in_the_second_call_leaves_the_first_on_the_bill() -> None:
    with pytest.raises(ModelRefused) as refused:
        decide(replies(TEXT, Reply("no such model", status=404)))
    assert refused.value.usage.calls == 1
    assert refused.value.usage.completion_tokens == 20


def test_a_free_form_rollout_is_played_to_its_end() -> None:
    world = environment()
    spec = RolloutSpec(world.environment_id, world.case_id, "t", "free", 0, "hash")
    with openai_server(replies(TEXT, read(), ENDING, json.dumps(READ_ENDING))) as server:
        clinician = LlmClinician(teacher(server))
        trajectory = asyncio.run(
            play(spec, Episode(world, Oracle(world.menu), style=spec.style), clinician)
        )
        asked = [request.body["messages"] for request in server.asked]
    assert trajectory.outcome == "diagnosed"
    assert trajectory.prompt_version == clinician.prompt_versions["free"]
    assert [answer.results[0].test for answer in trajectory.turns[0].answers] == [
        "Complete blood count",
        "Chest radiograph",
    ]
    assert asked[2] == messages(world.initial_observation, trajectory.turns[:1], 8, "free")
    assert TEXT in asked[2][1]["content"]
    assert trajectory.turns[1].usage != Usage()


def test_a_prompt_beyond_the_clinicians_budget_is_never_sent() -> None:
    with openai_server(replies()) as server:
        for style in ("schema", "free"):
            clinician = LlmClinician(teacher(server), context_tokens=500)
            with pytest.raises(PromptTooLong, match="500 are allowed"):
                asyncio.run(clinician.decide(Observation("Cough.", (), 8, style), 7))  # type: ignore[arg-type]
        assert server.asked == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CBC", "I'd get a cbc."),
        ("complete blood count (CBC)", "So a CBC first."),
        ("complete blood count (CBC)", "So a complete blood count first."),
        ("complete blood count", "So a CBC first."),
        ("Serum calcium level", "Then calcium in serum."),
        ("CT of the chest", "A chest CT, then."),
        ("tumor biopsy", "Biopsies of the tumour."),
        (
            "acute myocardial infarction",
            "- **Acute myocardial infarction**: likely\n- pericarditis",
        ),
    ],
)
def test_a_name_stands_in_a_text_in_other_forms(name: str, text: str) -> None:
    assert names_stand_in(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MRI", "I order a CT."),
        ("hyperkalemia", "Hypokalemia, then."),
        ("hypothyroidism", "I suspect hyperthyroidism."),
        ("T3", "T4 is what I want."),
        ("hepatitis B", "Hepatitis C is likely."),
        ("abdominal CT", "I order a chest CT. The abdominal pain is old."),
        ("complete blood count", "The cbc files are lost."),
        ("test", "some test"),
    ],
)
def test_another_name_does_not(name: str, text: str) -> None:
    assert not names_stand_in(name, text)


def test_the_example_in_the_prompt_is_a_valid_record_of_its_text() -> None:
    with openai_server(replies(TEXT, read())) as server:
        asyncio.run(
            LlmClinician(teacher(server)).decide(Observation("Cough.", (), 8, "free"), seed=7)
        )
        system = server.asked[1].body["messages"][0]["content"]
    text = system[system.rindex("<written_turn>") : system.rindex("</written_turn>")]
    example = system[system.index('{\n "decision"') : system.index("\nHad the text")]
    jsonschema.validate(json.loads(example), extraction_schema(False))
    extracted = parse_extracted(example, last_turn=False).value
    assert extracted.decision in text
    assert all(
        names_stand_in(name, extracted.decision)
        for name in json.loads(example)["action"]["order_tests"]
    )
    assert all(names_stand_in(line.diagnosis, text) for line in extracted.differential)


def test_no_diagnosis_is_not_numbered() -> None:
    record = '{"decision":"x","action":{"undecided":"y"},"differential":[],"pivot":"z"}'
    assert parse_extracted(record, last_turn=False).mended == ()
