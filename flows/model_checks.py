"""Before anything is paid for: every model of a run is asked one real question of its part, and the
reply is read as the run would read it.

A server that lists its models, or a key that is there, says nothing about whether the model can be
asked for a schema, exists, or writes what can be read. The questions are about one made-up case, go
through the same code as in a run, and past the call cache, which would answer for the server.
"""

import asyncio
from collections.abc import Iterator, Sequence

import httpx

from medaction.clinicians.gold import reconstruct
from medaction.clinicians.make import make_clinician
from medaction.envs.episode import T_MAX
from medaction.envs.extraction import make_extractor
from medaction.envs.menu_choice import make_chooser
from medaction.envs.records import BadCase, CaseReport, ClinicalEnvironment, DocumentedTest
from medaction.envs.turns import Observation, Style
from medaction.envs.verifier import second_opinion
from medaction.evaluation.dialogue import Examiner
from medaction.evaluation.free_text import read_decision
from medaction.evaluation.judges import LlmJudge, documented_text
from medaction.evaluation.protocol import Protocol, protocol
from medaction.flows.inspections import Inspection
from medaction.flows.services import local_models
from medaction.flows.settings import EnvironmentSettings, EvaluationSettings
from medaction.llm.calls import CallSettings, ModelError, api_key, configure
from medaction.llm.replies import MalformedReply
from medaction.llm.teacher import Teacher
from medaction.llm.usage import MENDED, PARAMETER_REFUSED, Usage
from medaction.tasks.evaluation import clinician_of
from medaction.tasks.work import CountingModel
from medaction.words.errors import MedactionError

# Made up, so that it may be sent to any provider.
_ABOUT = ("question", "case_json", "Sarcoidosis in a young woman with a dry cough")
_OBSERVATION = (
    "A 34-year-old woman came with a dry cough of six weeks and tender red nodules on both shins."
    " She had no fever and had never smoked. On examination the lungs were clear."
)
_BLOOD, _CHEST = "Hemoglobin was 12.9 g/dL.", "A chest radiograph showed bilateral hilar nodes."
_MENU = (
    DocumentedTest("Complete blood count", "laboratory", _BLOOD, ("CBC",)),
    DocumentedTest("Chest radiograph", "imaging", _CHEST),
)
CASE = ClinicalEnvironment(*_ABOUT, _OBSERVATION, _MENU, "Sarcoidosis")
_TEXT = f"A complete blood count was taken. {_BLOOD} {_CHEST}"
_LAST_LINE = "The diagnosis of sarcoidosis was made."
REPORT_ON_TRIAL = CaseReport(*_ABOUT, "\n\n".join((_OBSERVATION, _TEXT, _LAST_LINE)))


def models_of(settings: EnvironmentSettings) -> Iterator[tuple[str, Teacher]]:
    """Every language model of the settings with its role, each of its servers by itself."""
    for role, model in settings.models():
        if not model.embedded:
            # Each mirror by itself: a run goes past a server that is down, and would not tell of
            # it.
            for server in model.servers if model.api_base else (None,):
                yield role, model.model_copy(update={"api_base": server, "mirrors": ()})


def check_models(settings: EnvironmentSettings) -> list[Inspection]:
    """Ask every model of the settings at once; local ones are started for it. Never raises for what
    a model or its server does."""
    models = list(models_of(settings))
    with local_models() as reach:
        reachable: list[tuple[str, Teacher]] = []
        checks: list[Inspection] = []
        for role, model in models:
            try:
                reachable.append((role, reach(model)))
            # No weights, or no runtime for them (MedactionError).
            except RuntimeError as error:
                subject = f"{role} {model.name}"
                remedy = "give a model file or a folder of weights that is there"
                checks.append(Inspection(subject, "wrong", str(error), remedy))

        async def ask_all() -> Sequence[Inspection]:
            return await asyncio.gather(
                *(_check_of_role(role, model, settings) for role, model in reachable)
            )

        # Without the call cache, and with a ledger of its own: no budget is touched.
        configure(CallSettings())
        return [*checks, *asyncio.run(ask_all())]


def require_models(settings: EnvironmentSettings) -> None:
    """Ask every model. Raises MedactionError with a line and the remedy for each that cannot do its
    part."""
    bad = [check for check in check_models(settings) if check.state == "wrong"]
    if bad:
        lines = [f"{check.subject}: {check.fact} → {check.remedy}" for check in bad]
        raise MedactionError("nothing was begun, because " + "\n".join(lines))


async def _check_of_role(role: str, model: Teacher, settings: EnvironmentSettings) -> Inspection:
    subject = f"{role} {model.name}"
    try:
        usage = await _question_of_role(role, model, settings)
    except ModelError as error:
        fact = f"{' '.join(error.message.split())[:300]} ({_place(model)})"
        return Inspection(subject, "wrong", fact, await _remedy(model, error.status))
    except (MalformedReply, BadCase) as error:
        fact = f"its reply cannot be used: {' '.join(error.message.split())[:300]}"
        if isinstance(error, MalformedReply) and (text := " ".join(error.raw.split())[:80]):
            fact += f" (it began {text!r})"
        return Inspection(subject, "wrong", fact, _remedy_of_reply(model, error.message))
    except RuntimeError as error:  # its key is not in the environment
        return Inspection(subject, "wrong", str(error), "export it before the run")
    fact = f"{_place(model)} answers, and its reply was read ({usage.calls} calls)"
    mended = sorted({fault.message for fault in usage.faults if fault.error_class == MENDED})
    lessons = [fault.message for fault in usage.faults if fault.error_class == PARAMETER_REFUSED]
    if mended:
        fact += f"; in another form: {'; '.join(mended)}"
    return Inspection(subject, "note" if lessons else "ok", fact, "; ".join(lessons))


async def _question_of_role(role: str, model: Teacher, settings: EnvironmentSettings) -> Usage:
    """One question of the role, and its reply read. Returns what it used. Raises ModelError,
    MalformedReply, BadCase, and MedactionError when the key is not set."""
    rules = (
        protocol(settings.protocol, settings.mode, settings.t_max)
        if isinstance(settings, EvaluationSettings)
        else protocol("medaction")
    )
    if role in ("teacher", "model"):
        return await _first_turn(model, rules, role == "model", getattr(settings, "read_by", None))
    if role == "gold":
        turns = await reconstruct(model, REPORT_ON_TRIAL.text, CASE, T_MAX, 0)
        return turns[0].usage
    if role == "judge":
        judge = LlmJudge(model)
        await judge.diagnosis(CASE.diagnosis + " of the lungs", CASE, rules)
        return judge.usage
    if role == "reader":
        return (await read_decision(model, "I order a chest CT."))[1]
    counting_model = CountingModel(model)
    if role == "extractor":
        await asyncio.to_thread(make_extractor(counting_model), REPORT_ON_TRIAL)
    elif role == "verifier":
        opinions = await asyncio.to_thread(
            list, second_opinion(counting_model, REPORT_ON_TRIAL, CASE)
        )
        if not any(check.applicable for check in opinions):
            raise MalformedReply(f"none of its verdicts can be used: {opinions[0].detail}")
    elif role == "oracle":
        names = [test.name for test in CASE.menu]
        # A name for the blood count that stands in no table of ours.
        if not await asyncio.to_thread(make_chooser(counting_model), "blood picture", names):
            raise MalformedReply(f"it finds no 'blood picture' among {', '.join(names)}")
    else:
        examiner = Examiner(CASE.initial_observation, documented_text(CASE), counting_model)
        await asyncio.to_thread(examiner.answer, ["Chest radiograph"])
    return counting_model.usage


async def _first_turn(
    model: Teacher, rules: Protocol, is_evaluated: bool, reader: Teacher | None
) -> Usage:
    """The first turn, in the style in which the model plays most of its rollouts."""
    clinician = clinician_of(model, rules, reader) if is_evaluated else make_clinician(model)
    # Free form is read by a second call, which the question includes.
    only_free = not is_evaluated and model.free_form == 1
    style: Style = "free" if only_free else "schema"
    observation = Observation(CASE.initial_observation, (), T_MAX, style)
    return (await clinician.decide(observation, 0)).usage


def _place(model: Teacher) -> str:
    return model.api_base or model.servers[0]


async def _remedy(model: Teacher, status: int) -> str:
    """What to change, by HTTP's status."""
    key = model.api_key_env or "the variable that its settings name (api_key_env)"
    if status == 200:
        return "take another model, or ask the provider to lift the filter"
    if status in (401, 403):
        return f"put a key that may use this model into {key}"
    if status == 402:
        return "top up the account, or raise budget_usd"
    if status == 404:
        names = await _models_at(model)
        return "correct the model's name or the address" + (f": there are {names}" if names else "")
    if status == 408:
        return "raise timeout_s, or lower max_tokens"
    if status == 429:
        return "wait, raise the account's limits, or top it up"
    if status >= 500:
        return "start the server, or correct the address"
    return (
        "change what the message names; a parameter is left out with ';NAME=none' behind the"
        " model's name, a schema with ';structured=none'"
    )


def _remedy_of_reply(model: Teacher, message: str) -> str:
    if "token limit" in message:
        return f"raise max_tokens (now {model.max_tokens}), or switch its thinking off"
    schema = "" if model.structured == "json_schema" else ", structured=json_schema"
    return f"take another model{schema}, or one that is trained to follow a JSON form"


async def _models_at(model: Teacher) -> str:
    """The names of the models that a server of one's own lists; empty where it says nothing."""
    if not model.api_base:
        return ""
    headers = {"Authorization": f"Bearer {api_key(model)}"}
    try:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.get(f"{model.api_base.rstrip('/')}/models", headers=headers)
        rows = answer.json()["data"]
        # A gateway lists hundreds.
        return ", ".join(str(row["id"])[:60] for row in rows[:8])
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return ""
