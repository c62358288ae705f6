# %% [markdown]
# # Play an episode by hand
#
# A case report becomes an environment; whoever plays it sees the complaint, orders tests, and gets
# the documented results. Opens as a notebook in VS Code, PyCharm and Jupyter (jupytext); runs as it
# is: `python examples/play_an_episode.py`.

# %%
import json
from pathlib import Path

import medaction

CASES = Path(__file__).parent / "cases"
report = next(medaction.read_cases(str(CASES / "medaction-03.json")))
assert isinstance(report, medaction.CaseReport), report  # else it says why it cannot be read
built = medaction.build_environment(report)
environment = built.environment
assert environment, built.refusal  # a case that fails a check is refused, with the reason
print(environment.initial_observation[:300], "...")

# %% [markdown]
# The menu is what the report documents. A test that is not on it is answered with UNAVAILABLE.

# %%
print([test.name for test in environment.menu])

# %% [markdown]
# A model is any function from messages to text. This one orders two tests, then commits.


# %%
def model(messages: list[dict[str, str]]) -> str:
    """A turn in the grammar that the prompt asks for."""
    commits = "This is turn 2" in messages[-1]["content"]
    order = {"order_tests": ["D-dimer", "CT pulmonary angiography"]}
    turn = {
        "reasoning": "Pleuritic pain, syncope and a swollen calf speak for an embolism.",
        "differential": [
            {"diagnosis": "Pulmonary embolism", "confidence": 70},
            {"diagnosis": "Community-acquired pneumonia", "confidence": 20},
        ],
        "pivot": "Whether there is a clot in the pulmonary arteries.",
        "action": {"final_diagnosis": "Pulmonary embolism"} if commits else order,
    }
    return json.dumps(turn)


episode = medaction.Episode(environment, medaction.oracle_of(environment))
while not episode.ended:
    outcome = episode.step(model(episode.prompt()))
    print(outcome)

# %% [markdown]
# DTC: hops on the disease graph from the leading hypothesis to the truth. RAC: hops from what
# changed to the tests that were ordered before.

# %%
rewards = list(episode.rewards(medaction.linkers()))
for turn in rewards:
    print(turn.number, turn.dtc, turn.rac.value if turn.rac else None)
assert rewards[-1].dtc == 0
