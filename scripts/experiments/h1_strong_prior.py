"""H1: where the prior is strong, DFT is no worse than plain SFT out of distribution."""

from __future__ import annotations

import own
import tasks
from claims import Claim
from experiment import Experiment

LESS = {"dft": 1.0, "sft": -1.0}
HARM = -0.02
"""A loss of less than two points is none."""

EXPERIMENT = Experiment(
    name="H1",
    question="Trained on its own verified answers, does the model keep more elsewhere?",
    task=tasks.strong_prior,
    own_answers=True,
    arms=("sft", "dft", "dft:floor=0.1"),
    metrics=(own.RIGHT,),
    steps={"T0": 40, "T1": 30, "T2": 120},
    claims=(
        Claim("DFT - SFT, other keys", own.RIGHT, "other_keys", LESS, HARM),
        Claim("DFT - SFT, reworded", own.RIGHT, "reworded", LESS, HARM),
    ),
)
