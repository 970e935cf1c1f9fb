"""Rows with what the bare model answers by itself, where that is right."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from pathlib import Path

from tasks import Rows

from mlx_rsft import config as configuration
from mlx_rsft import evaluation, files
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.errors import DataError
from mlx_rsft.models.split import SplitModel
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter

LEAST = 32
MOST_TOKENS = 12
RIGHT = "contains:case=ignore"
"""The metric that verifies an answer in the model's own words."""


def only(
    rows: Rows, splits: Collection[str], model: str, template: str, reporter: Reporter
) -> Rows:
    """The rows, with the model's own answers in some splits, where these are right.

    Own words are right if they contain the answer that is known. Keeping what greedy
    decoding writes, where it is right, is rejection sampling at temperature 0.

    Raises:
        DataError: If fewer than ``LEAST`` training rows are left.
    """
    kept = dict(rows)
    for split in splits:
        written = _written(rows[split], model, template, reporter)
        kept[split] = [
            {**row, "completion": answer}
            for row, answer in zip(rows[split], written, strict=True)
            if answer
        ]
        reporter.note(f"{split}: {len(kept[split])} of {len(written)} are right.")
    if len(kept["train"]) < LEAST:
        raise DataError(
            f"The model answers {len(kept['train'])} training rows by itself, "
            f"{LEAST} are needed.",
            hint="The task is no strong prior of this model.",
        )
    return kept


def _written(
    rows: list[dict[str, str]], model: str, template: str, reporter: Reporter
) -> list[str]:
    """What the model answers to each; empty where it is wrong or cut."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "test.jsonl"
        files.write_text(place, "".join(json.dumps(row) + "\n" for row in rows))
        given = {
            "model.source": model,
            "data.source": scratch,
            "data.template": template,
            "evaluation.metrics": [RIGHT],
        }
        config = configuration.resolve([Layer(FLAG, given)]).config
        loaded = assemble.model(config, reporter)
        paths = assemble.evaluation_paths(config)
        examples = assemble.splits(paths, config, loaded, reporter).rows["test"]
    split, gauges = SplitModel(loaded.model), assemble.metrics(config)
    found = evaluation.measure(split, loaded.tokenizer, examples, gauges, MOST_TOKENS)
    marks = found.values[RIGHT].totals
    return [
        answer.text.strip() if mark and answer.ended else ""
        for mark, answer in zip(marks, found.written, strict=True)
    ]
