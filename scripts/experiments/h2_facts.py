"""H2: DFT cannot teach new facts; a floor of 0.1 brings back at least half."""

from __future__ import annotations

import tasks
from claims import Claim
from experiment import Experiment

FLOORED = "dft:floor=0.1"
HALF = {FLOORED: 1.0, "sft": -0.5, "dft": -0.5}

EXPERIMENT = Experiment(
    name="H2",
    question="How many new facts does each objective teach?",
    task=tasks.facts,
    arms=("sft", "dft", FLOORED, "dft:anchor=kl"),
    steps={"T0": 80, "T1": 40, "T2": 200},
    metrics=("exact_match", "drift_kl"),  # the drift is for H5
    claims=(
        Claim("SFT - DFT, recall", "exact_match", "test", {"sft": 1, "dft": -1}, 0.2),
        Claim("floor - half way from DFT to SFT", "exact_match", "test", HALF),
    ),
)
