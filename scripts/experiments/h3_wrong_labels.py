"""H3: with 30 % wrong labels DFT learns fewer of them and is right more often."""

from __future__ import annotations

import tasks
from claims import Claim
from experiment import Experiment

EXPERIMENT = Experiment(
    name="H3",
    question="What becomes of wrong labels among the training rows?",
    task=tasks.wrong_labels,
    arms=("sft", "dft", "dft:floor=0.1", "dft:schedule=staged,until=0.5"),
    steps={"T0": 80, "T1": 48, "T2": 240},
    claims=(
        Claim(
            "SFT - DFT, wrong labels learned",
            "exact_match",
            "wrong_labels",
            {"sft": 1.0, "dft": -1.0},
        ),
        Claim("DFT - SFT, clean", "exact_match", "test", {"dft": 1.0, "sft": -1.0}),
    ),
)
