"""H5: DFT drifts further from the bare model than plain SFT; an anchor holds it."""

from __future__ import annotations

from dataclasses import replace

import h2_facts
from claims import Claim

ANCHORED = "dft:anchor=kl"
FURTHER = {"dft": 1.0, "sft": -1.0}
HELD = {"sft": 1.0, ANCHORED: -1.0}

EXPERIMENT = replace(
    h2_facts.EXPERIMENT,
    name="H5",
    runs_of="H2",
    question="How far does each objective move the model, on the task and elsewhere?",
    claims=(
        Claim("KL, DFT - SFT, task", "drift_kl", "test", FURTHER),
        Claim("KL, DFT - SFT, elsewhere", "drift_kl", "elsewhere", FURTHER),
        Claim("KL, SFT - anchored DFT, task", "drift_kl", "test", HELD),
        Claim("KL, SFT - anchored DFT, elsewhere", "drift_kl", "elsewhere", HELD),
    ),
)
