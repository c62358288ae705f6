"""How much of what clinicians write is linked to a node, by which method, and how often rightly.

    python benchmarks/linking/evaluate.py --data FOLDER [--encoder medcpt] [--sample 200]

FOLDER holds medrbench/diagnosis_cases.json and primekg/nodes.csv.gz (true diagnoses and rare
diseases against a rebuilt PrimeKG subset), and transcripts/agentclinic_gpt5_runs.jsonl (tests
ordered in GPT-5 runs against the open test graph).

labels.jsonl: links judged by reading. right: the node is what the text says. broader: it is a true
generalisation of it ('sternal tuberculosis' to tuberculosis). wrong: anything else, also a special
case or only a circumstance of what the text says. --sample N prints N links, drawn with a seed over
corpora and methods, that have no label yet.
"""

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from pathlib import Path

import polars as pl

from benchmarks.agentclinic_runs import read_transcripts
from medaction.kg.graph import Graph, build_graph
from medaction.kg.linking import Link, Linker
from medaction.kg.open_graphs import open_test_graph

LABELS = Path(__file__).parent / "labels.jsonl"
METHODS = ("exact", "synonym", "abbreviation", "broader", "dense", "unlinked")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--sample", type=int, default=0)
    given = parser.parse_args()
    primekg = Linker(
        nodes_of_primekg(given.data / "primekg" / "nodes.csv.gz"),
        ("disease", "phenotype"),
        encoder=given.encoder,
    )
    tests = Linker(open_test_graph(), ("test",), encoder=given.encoder)
    runs = read_transcripts(given.data / "transcripts" / "agentclinic_gpt5_runs.jsonl")
    rare, diagnoses = texts_of_medrbench(given.data / "medrbench" / "diagnosis_cases.json")
    corpora = {
        "rare diseases": (rare, primekg),
        "true diagnoses": (diagnoses, primekg),
        "answers": (answers(given.data / "judging" / "medrbench_answers.jsonl"), primekg),
        "ordered tests": (sorted({order for run in runs for order in run.orders}), tests),
    }
    links = {name: linked(name, texts, linker) for name, (texts, linker) in corpora.items()}
    known = labels()
    if given.sample:
        for row in sample(links, given.sample, known):
            print(json.dumps(row, ensure_ascii=False))
        return
    print_shares(links)
    print_precision(links, known)


def nodes_of_primekg(path: Path) -> Graph:
    """The nodes of the rebuilt PrimeKG subset; linking needs no edges."""
    table = pl.read_csv(path, infer_schema=False)
    nodes = table.select(
        node=pl.int_range(pl.len()), node_id="node_id",
        node_type=pl.col("node_type").replace("effect/phenotype", "phenotype"),
        name="node_name", source="node_source",
    )  # fmt: skip
    return build_graph("rebuilt-primekg-subset", nodes, [])


def texts_of_medrbench(path: Path) -> tuple[list[str], list[str]]:
    """The distinct rare diseases, and the distinct true diagnoses, which are often sentences."""
    cases = json.loads(path.read_bytes()).values()
    rare = {name for case in cases for name in case.get("checked_rare_disease") or ()}
    return sorted(rare), sorted({case["generate_case"]["diagnosis_results"] for case in cases})


def answers(path: Path) -> list[str]:
    """The distinct final diagnoses of three models that are no longer than a sentence."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return sorted({row["answer"].strip() for row in rows if len(row["answer"]) < 160})


def linked(name: str, texts: list[str], linker: Linker) -> list[Link]:
    linker.link(
        [*texts[:1], "no such thing at all"]
    )  # the index is built once, before the clock runs
    start = time.perf_counter()
    found = linker.link(texts)
    print(
        f"{name}: {len(texts)} distinct texts, {len(texts) / (time.perf_counter() - start):.0f} a "
        f"second"
    )
    return found


def labels() -> dict[tuple[str, str, str], str]:
    """(corpus, text, node's name) -> verdict."""
    rows = (
        map(json.loads, LABELS.read_text(encoding="utf-8").splitlines()) if LABELS.exists() else ()
    )
    return {(row["corpus"], row["text"], row["node"]): row["verdict"] for row in rows}


def sample(
    links: dict[str, list[Link]], size: int, known: dict[tuple[str, str, str], str]
) -> list[dict[str, str]]:
    """Links without a label: round and round over corpora and methods, so that rare methods are
    judged too."""
    strata = defaultdict(list)
    for corpus, found in links.items():
        for link in found:
            if link.node is not None and (corpus, link.text, link.name) not in known:
                strata[corpus, link.method].append(
                    {"corpus": corpus, "text": link.text, "node": link.name, "method": link.method}
                )
    for key in strata:
        random.Random(0).shuffle(strata[key])
    drawn: list[dict[str, str]] = []
    while len(drawn) < size and any(strata.values()):
        drawn += [rows.pop() for rows in strata.values() if rows]
    return drawn[:size]


def print_shares(links: dict[str, list[Link]]) -> None:
    print(f"\n{'':16}" + "".join(f"{method:>14}" for method in METHODS))
    for corpus, found in links.items():
        counts = Counter(link.method for link in found)
        print(
            f"{corpus:16}"
            + "".join(
                f"{counts[method]:5} ({counts[method] / len(found):4.0%})".rjust(14)
                for method in METHODS
            )
        )


def print_precision(links: dict[str, list[Link]], known: dict[tuple[str, str, str], str]) -> None:
    """By corpus and method, and over each corpus with each method weighted as often as it
    occurs.
    """
    print(
        f"\n{'':16}{'method':14}{'links':>6}{'judged':>8}{'right':>7}{'broader':>9}{'wrong':>7}"
        f"{'right or broader':>18}"
    )
    for corpus, found in links.items():
        weighted = []
        for method in METHODS[:-1]:
            of = [link for link in found if link.method == method]
            verdicts = Counter(
                known[key] for link in of if (key := (corpus, link.text, link.name)) in known
            )
            judged = verdicts.total()
            if judged:
                true = (verdicts["right"] + verdicts["broader"]) / judged
                weighted.append((len(of), true, verdicts["right"] / judged))
                counts = f"{verdicts['right']:7}{verdicts['broader']:9}{verdicts['wrong']:7}"
                print(f"{corpus:16}{method:14}{len(of):6}{judged:8}{counts}{true:18.2f}")
        if weighted:
            total = sum(count for count, _, _ in weighted)
            true, right = (
                sum(row[0] * row[column] for row in weighted) / total for column in (1, 2)
            )
            print(
                f"{corpus:16}{'all, weighted':14}{total:6}{'':8}{'':23}{true:18.2f}   (right: "
                f"{right:.2f})"
            )


if __name__ == "__main__":
    main()
