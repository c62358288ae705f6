# %% [markdown]
# # Look at a dataset
#
# From two case reports to training records, and what is in one. Runs as it is:
# `python examples/look_at_a_dataset.py`. It needs no key, no GPU and no server.

# %%
import tempfile
from pathlib import Path

import polars as pl

from medaction.flows.runs import RUNS
from medaction.flows.settings import DistillSettings
from medaction.llm.teacher import Teacher

CASES = Path(__file__).parent / "cases"
out = Path(tempfile.mkdtemp(prefix="medaction-"))
teacher = Teacher.parse("kg-screening")
settings = DistillSettings(
    cases=str(CASES), only=["medaction-01", "medaction-03"], teachers=[teacher], out=out
)
summary = RUNS["distill"](settings)
for row in summary["funnel"]:
    print(f"{row['step']:32}{row['count']:>6}")

# %% [markdown]
# A record is a prompt and the turn that the model learns to write.

# %%
records = pl.concat([pl.read_parquet(file) for file in (out / "dataset").glob("*.parquet")])
print(records.group_by("case_id", "status").agg(pl.len()).sort("case_id"))
record = records.row(0, named=True)
for message in record["messages"]:
    print(f"--- {message['role']}\n{message['content'][:600]}")

# %% [markdown]
# How near the leading hypothesis comes to the truth, turn by turn.

# %%
by_turn = records.group_by("turn").agg(pl.col("dtc").mean(), pl.len().alias("records")).sort("turn")
print(by_turn)
assert len(records) > 0
