"""H4: a new format is learned fastest by plain SFT, then with a floor, then by DFT."""

from __future__ import annotations

import math

import tasks
from claims import LOG_STEPS, Claim
from experiment import Experiment

FLOORED = "dft:floor=0.1"

EXPERIMENT = Experiment(
    name="H4",
    question="How many steps until nine of ten answers have the new format?",
    task=tasks.new_format,
    arms=("sft", FLOORED, "dft"),
    steps={"T0": 80, "T1": 40, "T2": 120},
    looks=20,
    claims=(
        Claim(
            "log steps, floor - SFT", LOG_STEPS, "valid", {FLOORED: 1.0, "sft": -1.0}
        ),
        Claim(
            "log steps, DFT - floor", LOG_STEPS, "valid", {"dft": 1.0, FLOORED: -1.0}
        ),
        Claim(
            "log steps, SFT - floor",
            LOG_STEPS,
            "valid",
            {"sft": 1.0, FLOORED: -1.0},
            -math.log(10),
        ),
    ),
)
