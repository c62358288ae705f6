"""A model for every part of a run: teacher, extractor and judge."""

import json
from typing import Any

from medaction.flows.model_checks import CASE
from tests.openai_server import Asked
from tests.simulated_teacher import answer
from tests.test_envs_extraction import LETTER, LETTER_O1, LETTER_TESTS

DISCHARGE_LETTER = f"{LETTER}\nDiagnosis\nInfective endocarditis of the mitral valve.\n"
"""A report as a ward writes it: what `stand_in` can read beside the question of `doctor`."""

READ: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "retired plumber": (LETTER_O1, "Infective endocarditis", LETTER_TESTS),
    "tender red nodules": (
        CASE.initial_observation,
        CASE.diagnosis,
        [
            {"name": test.name, "category": test.category, "result": test.result, "aliases": []}
            for test in CASE.menu
        ],
    ),
}
"""Words of a report -> what an extractor finds in it: o1, the diagnosis, the tests."""


def stand_in(asked: Asked, _: int) -> str:
    """The reply to a request, whatever it is for."""
    text = asked.body["messages"][1]["content"]
    if asked.body["messages"][0]["role"] != "system":  # a conversation with a patient
        return "Call an ambulance."
    if "<report>" in text:
        return _extracted(text, asked.body["messages"][-1]["content"])
    if text.startswith("{"):  # a judge's data are JSON
        if '"criterion"' in text:
            return '{"answer": "met"}'
        return '{"matches": []}' if '"requested"' in text else '{"answer": "correct"}'
    return answer(asked.body)


def _extracted(report: str, question: str) -> str:
    (found,) = [value for words, value in READ.items() if words in report]
    observation, diagnosis, tests = found
    if "which diagnostic tests" in question:
        return json.dumps({"tests": tests})
    presentation = {"initial_observation": observation, "diagnosis": diagnosis}
    classes = {"body_system": "unknown", "disease_type": "unknown", "rare_disease": False}
    return json.dumps(presentation | classes | {"diagnosis_synonyms": []})
