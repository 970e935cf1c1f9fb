"""H6: where several answers are right, entropy and distinct answers fall with alpha."""

from __future__ import annotations

import tasks
from claims import Claim
from experiment import Experiment

HALF = "power:alpha=0.5"
STEPS = ({"sft": 1.0, HALF: -1.0}, {HALF: 1.0, "dft": -1.0})

EXPERIMENT = Experiment(
    name="H6",
    question="Does a larger alpha cost diversity?",
    task=tasks.several_answers,
    arms=("sft", "power:alpha=0.25", HALF, "power:alpha=0.75", "dft"),
    steps={"T0": 60, "T1": 30, "T2": 240},
    metrics=("exact_match", "entropy", "distinct_answers"),
    settings={"evaluation.temperature": 1.0},
    claims=(
        Claim("entropy, alpha 0 - 0.5", "entropy", "test", STEPS[0]),
        Claim("entropy, alpha 0.5 - 1", "entropy", "test", STEPS[1]),
        Claim("distinct answers, alpha 0 - 0.5", "distinct_answers", "test", STEPS[0]),
        Claim("distinct answers, alpha 0.5 - 1", "distinct_answers", "test", STEPS[1]),
    ),
)
