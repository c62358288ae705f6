"""The package that verifiers finds as `medaction-v1` (docs/rl.md)."""

from medaction.hub.verifiers_taskset import MedactionEnv, MedactionTaskset

__all__ = ["MedactionEnv", "MedactionTaskset"]
