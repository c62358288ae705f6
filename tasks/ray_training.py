"""The same training processes, started by Ray Train: on the cluster that RAY_ADDRESS names, or on a
local Ray.

The run's folder must be on a file system that all of its machines see.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any


def fit_with_ray(out: Path, processes: int, gpu: bool, program: str) -> None:
    """`program`: the module whose `work` a process runs. Raises what the workers raised."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"), include_dashboard=False, log_to_driver=True
    )
    trainer = TorchTrainer(
        _work,
        train_loop_config={"out": str(out.resolve()), "program": program},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpu),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(storage_path=str((out / "ray").resolve())),
    )
    trainer.fit()


def _work(config: dict[str, Any]) -> None:
    from medaction.training.checkpoints import REFUSAL
    from medaction.training.settings import TrainError

    try:
        import_module(config["program"]).work(Path(config["out"]))
    except TrainError as refusal:
        (Path(config["out"]) / REFUSAL).write_text(str(refusal), encoding="utf-8")
        raise


if __name__ == "__main__":
    fit_with_ray(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "gpu", sys.argv[4])
