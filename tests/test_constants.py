"""The constants that decide results, each with its source: a change of one is a decision, never a
slip. `benchmarks/mutants.py` changes them one by one and counts what the tests notice."""

from fractions import Fraction
from importlib import import_module
from typing import Any, NamedTuple

import pytest


class Constant(NamedTuple):
    """`name` is NAME or Class.field of `module`; `tests` are those that measure what it decides."""

    module: str
    name: str
    value: float
    source: str
    tests: str


TABLE = """
# How models are called
llm.teacher Teacher.temperature 0.6 | paper, appendix C | test_clinicians_teacher
llm.teacher Teacher.max_tokens 5500 | paper, appendix C | test_clinicians_teacher
llm.teacher FREE_FORM 0.1 | paper, RQ2 | test_free_form
llm.teacher CONTEXT_TOKENS 24_000 | our choice | test_clinicians_prompts
llm.calls CALL_RETRIES 4 | measured on servers that fail | test_clinicians_llm
# The episode
envs.episode T_MAX 8 | paper, appendix C | test_rollout
envs.prompts RECENT 2 | paper, section 3.2 | test_clinicians_prompts
envs.loops LOOP 2 | our choice | test_rollout
envs.reply MOST_TESTS 6 | our choice | test_clinicians_reply
envs.reply MOST_DIAGNOSES 8 | our choice | test_clinicians_reply
# Rewards
envs.credit Weights.diagnosis 0.5 | our choice | test_credit
envs.credit Weights.test_f1 0.2 | our choice | test_credit
envs.credit Weights.dtc 0.1 | our choice | test_credit
envs.credit Weights.rac 0.05 | our choice | test_credit
envs.credit Weights.information 0.1 | our choice | test_credit
envs.credit Weights.cost 0.05 | our choice | test_credit
# Environments and their oracle
envs.oracle ENCODER_AT 0.86 | labelled orders | test_envs_oracle
envs.matching COVERAGE 0.6 | labelled orders | test_envs_oracle
envs.menu_choice MOST_ENTRIES 8 | our choice | test_envs_oracle_choice
envs.grounding GROUNDED_AT 90.0 | MedR-Bench's reports | test_envs_build
envs.documented NO_RESULT_AT 0.75 | made-up statements | test_envs_build
envs.diagnosis_names CLOSE_AT 92.0 | names of diseases | test_envs_build
envs.extraction QUESTION_ATTEMPTS 3 | our choice | test_envs_extraction
envs.extracted LOST 0.25 | our choice | test_envs_extraction
envs.extraction COVERED 0.5 | our choice | test_envs_extraction
envs.verifier SHORTEST_QUOTE 12 | our choice | test_verifier
# Trees and pruning
flows.settings DistillSettings.rollouts 3 | paper, appendix C | test_rollout
flows.settings DistillSettings.launch_points 1 | paper, appendix C | test_rollout
flows.settings DistillSettings.branches 1 | paper, appendix C | test_rollout
flows.settings DistillSettings.t_max 8 | paper, appendix C | test_rollout
flows.settings DistillSettings.validation_percent 10 | our choice | test_store
trajectories.quarantine LEAST_TURNS 50 | our choice | test_scoring
trajectories.quarantine MOST_REPAIRED 0.2 | reliability check S12 | test_scoring
trajectories.quarantine MOST_IDENTICAL 0.3 | reliability check S12 | test_scoring
trajectories.quarantine MOST_FOREIGN 0.2 | our choice, S12 has no figure | test_scoring
kg.pruning THRESHOLD 3.0 | paper, appendix C | test_kg_pruning
kg.thresholds OPEN_THRESHOLD 2.0 | 100 AgentClinic cases | test_kg_calibration
kg.thresholds PAPER_SHARE 0.95 | our choice | test_kg_calibration
kg.calibration STEP 0.5 | our choice | test_kg_calibration
evaluation.failure_modes ERRATIC 3.0 | our choice | test_failure_modes
kg.encoder SMALL_THRESHOLD 0.78 | MedR-Bench's diagnoses | test_kg_encoder
kg.linking NEIGHBOURS 5 | our choice | test_kg_linking
kg.open_graphs MAX_SAME_NAME 6 | names of the graph | test_kg_open_graphs
# The offline judge
evaluation.diagnoses LIKELY 0.8 | real answers | test_evaluation_judges
evaluation.diagnoses VAGUE 0.5 | real answers | test_evaluation_judges
evaluation.diagnoses IN_COMMON 0.15 | real answers | test_evaluation_judges
evaluation.diagnoses NAMED 0.75 | real answers | test_gaming
evaluation.diagnoses MANY 4 | real answers | test_gaming
evaluation.word_shares EXCHANGED 3 | our choice | test_gaming
kg.hierarchy STEPS 3 | our choice | test_gaming
evaluation.diagnoses FOREIGN 0.3 | our choice | test_evaluation_judges
trajectories.preferences LEAST_GAIN 0.05 | our choice | test_preferences
# Gold and free form
clinicians.gold SAME_DIAGNOSIS 85.0 | our choice | test_gold
clinicians.free_form COPIED 90.0 | our choice | test_free_form
# Training
training.settings EPOCHS 3 | paper, appendix C | test_training_data
training.settings TrainSettings.batch 32 | paper, appendix C | test_training_packing
training.settings LEARNING_RATE 2e-4 | paper, appendix C | test_training_data
training.settings PAIRS_EPOCHS 1 | our choice | test_training_preferences
training.settings PAIRS_LEARNING_RATE 1e-6 | Rafailov 2023 | test_training_preferences
training.settings PLAY_EPOCHS 1 | Shao 2024 | test_hub_grpo
training.settings PLAY_LEARNING_RATE 1e-6 | Shao 2024 | test_hub_grpo
training.settings TrainSettings.group 8 | TRL's default | test_hub_grpo
hub.grpo TEMPERATURE 0.6 | paper, appendix C | test_hub_grpo
training.settings TrainSettings.replay 0.2 | our choice | test_redistill
training.settings TrainSettings.prompt_tokens 100 | Lester 2021 | test_soft_prompt
training.sweep DIVERGED 4.0 | fastai's finder | test_training_more
training.schedule LOOKS 4 | our choice | test_training_schedule
training.schedule LOOK_SHARE 0.03 | our choice | test_training_schedule
training.schedule INTERVAL 1800.0 | our choice | test_training_schedule
training.schedule SAVING_SHARE 0.02 | our choice | test_training_schedule
training.checkpoints SPARE_CHECKPOINTS 2 | Trainer's order | test_training_schedule
training.data MOST_DROPPED 0.05 | our choice | test_training_templates
training.estimate FITS 0.8 | measured on an H200 | test_training_estimate
training.estimate CHUNK_LOGITS 67_108_864 | our choice | test_training_loss
training.packing GRAIN 64 | tiles of kernels | test_training_packing
training.attention CLOSE 0.03 | 8 bits of bf16 | test_training_attention
training.sweep LOWEST 1e-7 | fastai's finder | test_training_more
training.sweep HIGHEST 1.0 | our choice | test_training_more
training.sweep SMOOTHING 0.7 | our choice | test_training_more
training.sweep SWEEP_STEPS 100 | fastai's finder | test_training_more
training.settings TrainSettings.warmup 0.03 | our choice | test_training_run
training.settings TrainSettings.weight_decay 0.0 | our choice | test_training_run
training.settings TrainSettings.lora_rank 64 | QLoRA 2023 | test_training_run
training.settings TrainSettings.beta 0.1 | Rafailov 2023 | test_training_preferences
training.settings TrainSettings.max_length 16_384 | our choice | test_training_data
training.settings TrainSettings.validation_percent 10 | our choice | test_training_data
training.settings TrainSettings.validation_records 512 | our choice | test_training_schedule
training.settings TrainSettings.keep 2 | our choice | test_training_schedule
training.settings TrainSettings.reply_tokens 2048 | our choice | test_hub_grpo
training.settings TrainSettings.t_max 8 | paper, appendix C | test_hub_grpo
# Evaluation
flows.settings EvaluationSettings.runs 3 | paper, appendix C | test_evaluation_protocol
evaluation.power ALPHA 0.05 | convention | test_experiment
evaluation.power POWER 0.8 | Cohen 1988 | test_experiment
evaluation.power SCORE_VARIANCE_BETWEEN 1/3 | Miller 2024, section 5 | test_experiment
evaluation.power SCORE_VARIANCE_WITHIN 1/6 | Miller 2024, section 5 | test_experiment
kg.bootstrap RESAMPLES 2000 | quantiles move little | test_evaluation_scores
evaluation.judges ATTEMPTS 3 | our choice | test_evaluation_judges
evaluation.contamination SHINGLE 2 | planted copies | test_contamination
evaluation.contamination ALIKE 0.5 | MedR-Bench | test_contamination
evaluation.contamination LEAST_SHINGLES 10 | our choice | test_contamination
evaluation.contamination PASSAGE 25 | planted copies | test_contamination
# What no other test notices
envs.checks MIN_OBSERVATION 40 | our choice | test_envs_build
envs.extracted LONGEST_RESULT 700 | our choice | test_envs_extraction
envs.extracted NEAR 25 | our choice | test_envs_extraction
envs.extraction MAX_TESTS 40 | our choice | test_envs_extraction
envs.grounding ENOUGH 500 | our choice | test_envs_extraction
envs.ledger TAKEN_OVER 0.5 | MedR-Bench | test_envs_ledger
envs.oracle _SHORTEST_SLIP 6 | our choice | test_envs_oracle
envs.redaction MOST 0.5 | our choice | test_envs_build
kg.calibration FEW 30 | our choice | test_kg_calibration
kg.disease_classes LEAD 1.5 | our choice | test_kg_disease_classes
kg.linking _MAX_DENSE_NAME 26 | our choice | test_kg_linking
kg.readings MAX_ABBREVIATION 6 | our choice | test_kg_linking
evaluation.contamination TOO_COMMON 5 | our choice | test_contamination
evaluation.diagnoses MOST_NAMES 6 | our choice | test_gaming
evaluation.scores Z_95 1.959964 | normal law | test_evaluation_scores
llm.replies _SHORTEST_ALIKE 5 | our choice | test_clinicians_reply
llm.teacher LOCAL_CONTEXT_TOKENS 6000 | our choice | test_local_model
"""
"""A constant a line: its module, its name, its value, where that comes from, and who tests it."""


def constant_of(line: str) -> Constant:
    place, source, tests = line.split(" | ")
    module, name, value = place.split()
    number = int(value) if value.replace("_", "").isdigit() else float(Fraction(value))
    return Constant(module, name, number, source, tests)


CONSTANTS = [constant_of(line) for line in TABLE.split("\n") if line and line[0] != "#"]


NEED_TORCH = ("training.attention",)


def value_of(constant: Constant) -> Any:
    owner: Any = import_module(f"medaction.{constant.module}")
    *classes, name = constant.name.split(".")
    for part in classes:
        settings = getattr(owner, part)
        fields = getattr(settings, "model_fields", None) or settings.__dataclass_fields__
        return fields[name].default
    return getattr(owner, name)


@pytest.mark.parametrize(
    "constant",
    [
        pytest.param(
            constant,
            id=constant.name,
            marks=[pytest.mark.train] if constant.module in NEED_TORCH else [],
        )
        for constant in CONSTANTS
    ],
)
def test_a_constant_that_decides_results_is_what_its_source_says(constant: Constant) -> None:
    if constant.module in NEED_TORCH:
        pytest.importorskip("torch", reason="training is not installed")
    assert value_of(constant) == constant.value, constant.source


def test_every_constant_can_be_changed_where_it_stands() -> None:
    from benchmarks.mutants import REPOSITORY, mutate

    for constant in CONSTANTS:
        text = (REPOSITORY / f"{constant.module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert mutate(text, constant) != text  # raises where it is not there


def test_the_rule_of_pruning_is_the_setting_of_a_run() -> None:
    values = {constant.name: constant.value for constant in CONSTANTS}
    assert values["T_MAX"] == values["DistillSettings.t_max"]
