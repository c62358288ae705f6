"""The same training processes, started by Ray Train: on the cluster that RAY_ADDRESS names, or on a
local Ray.

The run's folder must be on a file system that all of its machines see.
"""

import os
import sys
from pathlib import Path
from typing import Any


def fit_with_ray(out: Path, processes: int, gpu: bool) -> None:
    """Raises what the workers raised."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ray.init(
        address=os.environ.get("RAY_ADDRESS", "local"), include_dashboard=False, log_to_driver=True
    )
    trainer = TorchTrainer(
        _train,
        train_loop_config={"out": str(out.resolve())},
        scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpu),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        run_config=RunConfig(storage_path=str((out / "ray").resolve())),
    )
    trainer.fit()


def _train(config: dict[str, Any]) -> None:
    from medaction.training.process import train_as_job_says

    train_as_job_says(Path(config["out"]))


if __name__ == "__main__":
    fit_with_ray(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "gpu")
