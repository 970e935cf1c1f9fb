"""Rows whose answer the bare model would write by itself: its own, verified answers."""

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


def only(
    rows: Rows, splits: Collection[str], model: str, template: str, reporter: Reporter
) -> Rows:
    """The rows, without those of some splits that the model would answer otherwise.

    Greedy decoding that writes the right answer has generated it: keeping those rows is
    rejection sampling at temperature 0.

    Raises:
        DataError: If fewer than ``LEAST`` training rows are left.
    """
    kept = dict(rows)
    for split in splits:
        marks = _right(rows[split], model, template, reporter)
        kept[split] = [
            row for row, right in zip(rows[split], marks, strict=True) if right
        ]
        reporter.note(f"{split}: {len(kept[split])} of {len(marks)} are its own.")
    if len(kept["train"]) < LEAST:
        raise DataError(
            f"The model answers {len(kept['train'])} training rows by itself, "
            f"{LEAST} are needed.",
            hint="The task is no strong prior of this model.",
        )
    return kept


def _right(
    rows: list[dict[str, str]], model: str, template: str, reporter: Reporter
) -> list[bool]:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch) / "test.jsonl"
        files.write_text(place, "".join(json.dumps(row) + "\n" for row in rows))
        given = {
            "model.source": model,
            "data.source": scratch,
            "data.template": template,
            "evaluation.metrics": ["exact_match"],
        }
        config = configuration.resolve([Layer(FLAG, given)]).config
        loaded = assemble.model(config, reporter)
        paths = assemble.evaluation_paths(config)
        examples = assemble.splits(paths, config, loaded, reporter).rows["test"]
    split, gauges = SplitModel(loaded.model), assemble.metrics(config)
    found = evaluation.measure(split, loaded.tokenizer, examples, gauges, 1)
    return [bool(mark) for mark in found.values["exact_match"].totals]
