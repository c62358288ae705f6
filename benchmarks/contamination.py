"""How well copied cases are found, and at which thresholds: MedR-Bench's reports with their
summaries, and planted copies in other words.

Run as: python benchmarks/contamination.py [--data ../shared/data] [--copies 20] [--seed 0] [--every
1] [--out FOLDER]

1. Thresholds. Each of MedR-Bench's cases is there as its published report and as a summary that a
   language model wrote of it: the pairs of report and summary of one case are copies in other
   words, all other pairs are none. Half of the cases sets the thresholds, the other half tests
   them.
2. Planted copies: cases of MedR-Bench under other ids and titles, in other words, with other
   numbers, their sections in another order and a tenth left out (benchmarks/paraphrase.py), half of
   them from the summary and half from the report alone, put among cases of AgentClinic and PMC, as
   a training set might have them. What is found in it against the whole benchmark is listed.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.paraphrase import paraphrased
from medaction.evaluation.case_sets import SetCase, read_set
from medaction.evaluation.contamination import (
    SIGNALS,
    THRESHOLDS,
    Encode,
    find_pairs,
    measured,
    remembering,
    shingles_of,
    title_likeness,
)
from medaction.kg.encoder import load_encoder
from medaction.trajectories.scoring import disease_linker

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
BENCHMARK, OTHERS = (
    "medrbench/diagnosis_cases.json",
    ("agentclinic/agentclinic_medqa.jsonl", "pmc_jats"),
)
FALSE_PAIRS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--copies", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="thresholds from every n-th case only: encoding whole reports takes minutes",
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not (given.data / BENCHMARK).is_file():
        sys.exit(
            f"{given.data / BENCHMARK} is not there: give --data, a folder with {BENCHMARK}"
            " (docs/sources.md)"
        )
    cases = [case for case in read_set(given.data / BENCHMARK) if case.names]
    encode = remembering(load_encoder(threads=2).encode)
    result = {
        "planted": planted(cases, given, encode),
        "thresholds": thresholds(cases[:: given.every], encode),
    }
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "contamination.json").write_text(json.dumps(result, indent=1))


# --- 1. thresholds ----------------------------------------------------------------------


def thresholds(cases: Sequence[SetCase], encode: Encode) -> dict[str, dict[str, float]]:
    """Of each signal: what copies and others have, and what the thresholds that the first half
    would set find in the second."""
    reports = [replace(case, texts=case.texts[:1], presentation="") for case in cases]
    summaries = [replace(case, texts=case.texts[-1:]) for case in cases]
    started = time.perf_counter()
    figures, _ = measured(summaries, reports, encode, disease_linker())
    print(f"{len(cases)} summaries with as many reports: {time.perf_counter() - started:.0f} s")
    found = {}
    for name in ("text", "encoder", "presentation"):
        own, others = np.diag(figures[name]), figures[name].copy()
        np.fill_diagonal(others, np.nan)
        if not np.isfinite(others).any():
            print(
                f"\n{name}: no two of these cases have one diagnosis; copies {np.nanmin(own):.3f}"
                f" to {np.nanmax(own):.3f}"
            )
            continue
        halves = [np.arange(len(cases)) % 2 == half for half in (0, 1)]
        set_at = _above(others[np.ix_(halves[0], halves[0])])
        test = others[np.ix_(halves[1], halves[1])]
        found[name] = {
            "copies, lowest": float(np.nanmin(own)),
            "copies, 1 %": float(np.nanquantile(own, 0.01)),
            "copies, median": float(np.nanmedian(own)),
            "others, highest": float(np.nanmax(others)),
            "others, 99.99 %": float(np.nanquantile(others, 0.9999)),
            f"threshold with at most {FALSE_PAIRS} false pairs in one half": set_at,
            "its recall in the other half": float(np.nanmean(own[halves[1]] >= set_at)),
            "its false pairs there": int(np.nansum(test >= set_at)),
            "shipped threshold": THRESHOLDS[name],
            "its recall": float(np.nanmean(own >= THRESHOLDS[name])),
            "its false pairs": int(np.nansum(others >= THRESHOLDS[name])),
            "of pairs": int(np.isfinite(others).sum()),
        }
        print(f"\n{name}")
        for what, value in found[name].items():
            print(f"  {what}: {value:.3f}" if isinstance(value, float) else f"  {what}: {value}")
    either = (figures["text"] >= THRESHOLDS["text"]) | (figures["encoder"] >= THRESHOLDS["encoder"])
    either |= np.nan_to_num(figures["presentation"], nan=-1.0) >= THRESHOLDS["presentation"]
    print(
        f"\nany of the three: {np.diag(either).sum()} of {len(cases)} copies,"
        f" {either.sum() - np.diag(either).sum()} false pairs"
    )
    titles = title_likeness(cases, cases)
    np.fill_diagonal(titles, np.nan)
    print(
        f"titles of different cases: highest likeness {np.nanmax(titles):.2f}; shipped threshold"
        f" {THRESHOLDS['title']}"
    )
    return found | {
        "any": {
            "copies": int(np.diag(either).sum()),
            "false pairs": int(either.sum() - np.diag(either).sum()),
        }
    }


def _above(others: np.ndarray) -> float:
    """Just above the highest figure that would let a further false pair in."""
    known = np.sort(others[np.isfinite(others)])[::-1]
    return float(np.nextafter(known[FALSE_PAIRS], 2.0)) if len(known) > FALSE_PAIRS else 0.0


# --- 2. planted copies ------------------------------------------------------------------


def plant(case: SetCase, number: int, rng: random.Random) -> SetCase:
    """A copy under another id: of the summary with its presentation, or (every second one) of the
    published report alone."""
    text = case.texts[0 if number % 2 else -1]
    copy = paraphrased(text, rng)
    presentation = "" if number % 2 else paraphrased(case.presentation, rng)
    if presentation:
        copy = f"{presentation}\n{paraphrased(text[len(case.presentation) :], rng)}"
    return SetCase(
        f"copy-{number:02}",
        "planted",
        paraphrased(case.title, rng),
        (copy,),
        presentation,
        case.names,
        frozenset(),
    )


def planted(
    cases: Sequence[SetCase], given: argparse.Namespace, encode: Encode
) -> dict[str, object]:
    rng = random.Random(given.seed)
    originals = rng.sample(list(cases), given.copies)
    copies = [plant(case, number, rng) for number, case in enumerate(originals)]
    kept = [
        _kept(case.texts[0 if number % 2 else -1], copies[number].texts[0])
        for number, case in enumerate(originals)
    ]
    training = [
        *copies,
        *(
            case
            for other in OTHERS
            if (given.data / other).exists()
            for case in read_set(given.data / other)
        ),
    ]
    started = time.perf_counter()
    pairs = find_pairs(training, cases, encode, disease_linker())
    seconds = time.perf_counter() - started
    true = {(copy.case_id, case.case_id) for copy, case in zip(copies, originals, strict=True)}
    right = pairs.filter(
        pl.struct("case_id", "other_id").map_elements(
            lambda row: tuple(row.values()) in true, return_dtype=pl.Boolean
        )
    )
    wrong = pairs.join(right.select("case_id", "other_id"), on=["case_id", "other_id"], how="anti")
    print(
        f"\n{len(copies)} copies (median {100 * np.median(kept):.0f} % of their word pairs left)"
        f" among {len(training) - len(copies)}"
        f" other cases, against {len(cases)}: {len(right)} found, {len(wrong)} other pairs;"
        f" {seconds:.0f} s"
    )
    for name in SIGNALS:
        own = [row[name] for row in right.iter_rows(named=True) if row[name] is not None]
        alone = right.filter(pl.col("found_by").list.contains(name)).height
        if own:
            print(
                f"  {name}: finds {alone}, lowest figure {min(own):.2f}, median"
                f" {np.median(own):.2f}"
            )
    for missed in sorted(true - set(right.select("case_id", "other_id").iter_rows())):
        print(f"  missed: {missed}")
    _list(wrong)
    within = find_pairs(cases, None, encode, disease_linker())
    print(f"\nwithin the {len(cases)} themselves: {len(within)} pairs")
    _list(within)
    return {
        "copies": len(copies),
        "found": len(right),
        "other_pairs": wrong.to_dicts(),
        "seconds": seconds,
        "within": within.to_dicts(),
    }


def _list(pairs: pl.DataFrame) -> None:
    for row in pairs.iter_rows(named=True):
        figures = ", ".join(f"{name} {row[name]:.2f}" for name in SIGNALS if row[name] is not None)
        print(
            f"  {row['case_id']} - {row['other_id']}: {figures}\n    {row['title_of_case']}\n   "
            f" {row['title_of_other']}"
        )


def _kept(original: str, copy: str) -> float:
    ours, theirs = shingles_of(original), shingles_of(copy)
    return len(ours & theirs) / max(min(len(ours), len(theirs)), 1)


if __name__ == "__main__":
    main()
