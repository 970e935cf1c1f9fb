"""The tiny model of T0: trained in place to answer questions about known keys.

A llama of 70,000 parameters. A fifth of its lessons is wrong on purpose, so that it gives
a right answer about 0.8 of the probability: a strong prior that is not certainty.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from worlds import LETTERS

from mlx_rsft import config as configuration
from mlx_rsft import files, testing
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.export.product import Choices
from mlx_rsft.workflows import export, train
from mlx_rsft.workflows.reporter import Silent

SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SETTINGS = {
    "adapter.method": "full",
    "adapter.layers": "all",
    "optimizer.learning_rate": 5e-3,
    "training.batch_size": 64,
    "training.steps": 150,
}
MISTAKEN = 0.2


def made(out: Path) -> Path:
    """The model's folder; made unless it is there."""
    folder = out / "reader"
    if not folder.exists():
        with files.new_folder(folder) as scratch:
            _make(scratch)
    return folder / "fused" / "fused"


def _make(scratch: Path) -> None:
    blank = testing.write_tiny_model(scratch / "blank", **SHAPE)
    _write_lessons(scratch / "data" / "train.jsonl")
    given = {
        "model.source": str(blank),
        "data.source": str(scratch / "data"),
        "objective.name": "sft",
        **SETTINGS,
    }
    resolved = configuration.resolve([Layer(FLAG, given)])
    run, quiet = scratch / "run", Silent()
    train.train(train.prepare(resolved, run, quiet), run, quiet)
    export.export(
        resolved,
        run,
        ["fused"],
        scratch / "fused",
        Choices(),
        quiet,
        verified=False,
    )


def _write_lessons(place: Path) -> None:
    """Every known key in every wording that is trained on, in no order."""
    order = Random("lessons")
    answers = sorted(set(LETTERS.known.values()))
    rows = [
        {
            "prompt": wording.format(key),
            "completion": right if order.random() > MISTAKEN else order.choice(answers),
        }
        for key, right in LETTERS.known.items()
        for wording in LETTERS.asks
    ]
    order.shuffle(rows)
    files.write_text(place, "".join(json.dumps(row) + "\n" for row in rows))
