"""What training must never see: cases of the benchmarks and hard sets that a run is told of, in
whatever words they come."""

from pathlib import Path

from medaction.evaluation.case_sets import read_set
from medaction.evaluation.contamination import find_pairs, remembering
from medaction.kg.encoder import load_encoder
from medaction.training.data import datasets_and_shares
from medaction.training.settings import TrainError, TrainSettings
from medaction.trajectories.scoring import disease_linker


def refuse_contaminated(settings: TrainSettings) -> None:
    """Raises TrainError when a case of the datasets is one of a set that `against` names, by any
    signal of evaluation.contamination."""
    if not settings.against:
        return
    encode, linker = remembering(load_encoder().encode), disease_linker()
    folders = [folder for folder, _ in datasets_and_shares(settings)]
    for folder in (*folders, *map(Path, settings.earlier)):
        cases = [case for case in read_set(folder) if case.case_id not in settings.without]
        for benchmark in settings.against if cases else ():
            pairs = find_pairs(cases, read_set(benchmark), encode, linker)
            if len(pairs):
                examples = ", ".join(
                    f"{row['case_id']} is {row['other_id']}"
                    for row in pairs.head(5).iter_rows(named=True)
                )
                raise TrainError(
                    f"{folder} holds {pairs['case_id'].n_unique()} cases of {benchmark} or copies"
                    f" of them ({examples}): look at them with"
                    f" `medaction contamination {folder} {benchmark}`, and leave them out with"
                    " --without"
                )
