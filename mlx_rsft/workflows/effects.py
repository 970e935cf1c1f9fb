"""What training did beside its task: drift, forgetting, sureness, length, refusals.

Each is held beside the bare model's figure where that is at hand: the adapter off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_rsft import evaluation
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN, VALID
from mlx_rsft.evaluation import Gauge, Measured, general, refusals
from mlx_rsft.evaluation.refusals import HARMFUL, HARMLESS
from mlx_rsft.models.fitted import OffSwitch, places
from mlx_rsft.models.split import SplitModel
from mlx_rsft.models.trunk import Trunk
from mlx_rsft.records import Metric, finite
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import finished, sealing
from mlx_rsft.workflows.assemble import Splits

ON, OFF = "on", "off"
"""Of ``evaluation.side_effects``; by itself a comparison looks, and a run does not."""
TASK = "task"
ROWS = 24
"""Rows of the task to look at."""
DRIFT = "drift"
ON_TASK = ("drift_kl", "entropy", "length_ratio", "end_of_turn")
IN_GENERAL = ("drift_kl", "drift_nll", "entropy")
REFUSAL = "refusal"
REFUSAL_TOKENS = 24
"""Who declines says so at once."""
WISHED = {HARMFUL: "higher", HARMLESS: "lower"}

Effect = dict[str, Any]


def some(rows: Sequence[Example], seed: int) -> list[Example]:
    """A few rows that the seed picks, in their order."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[int(place)] for place in sorted(order[:ROWS])]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked at.

    Attributes:
        split: The model.
        tokenizer: Of the model.
        rows: Of the task.
        max_tokens: Of a generated answer, at most.
        trunk: Knows what the model's frozen blocks make of a row.
    """

    split: SplitModel
    tokenizer: Any
    rows: Sequence[Example]
    max_tokens: int
    trunk: Trunk | None

    def of_tuned(self) -> list[Effect]:
        """All of them, with drift where there is an adapter that can be taken off."""
        return self._measured("" if places(self.split.model) else DRIFT)

    def of_bare(self) -> list[Effect]:
        """The same of a model that drifted from nothing."""
        return self._measured(DRIFT)

    def beside_bare(self) -> list[Effect]:
        """Of the tuned model, each with ``base``: the bare one's; None: not at hand."""
        tuned = self.of_tuned()
        if not places(self.split.model):
            return joined(tuned, [])
        with OffSwitch(self.split.model).off():
            return joined(tuned, self.of_bare())

    def _measured(self, without: str) -> list[Effect]:
        found: list[Effect] = []
        asked = {
            TASK: (self.rows, ON_TASK),
            general.NAME: (general.examples(self.tokenizer), IN_GENERAL),
        }
        for name, (examples, metrics) in asked.items():
            wanted = [m for m in metrics if not (without and m.startswith(without))]
            gauges = evaluation.choose(wanted)
            measured = self._of(examples, gauges, self.max_tokens)
            for metric, figure in measured.metrics.items():
                found.append(_effect(name, metric, figure, gauges[metric].better))
        questions = refusals.examples(self.tokenizer)
        measured = self._of(questions, evaluation.choose([REFUSAL]), REFUSAL_TOKENS)
        for kind, better in WISHED.items():
            figure = measured.tags[kind].metrics[REFUSAL]
            found.append(_effect(kind, REFUSAL, figure, better))
        return found

    def _of(
        self, rows: Sequence[Example], gauges: Mapping[str, Gauge], most: int
    ) -> Measured:
        return evaluation.measure(
            self.split, self.tokenizer, rows, gauges, most, trunk=self.trunk
        )


def joined(
    tuned: Sequence[Mapping[str, Any]], bare: Sequence[Mapping[str, Any]]
) -> list[Effect]:
    """Figures of the tuned model, each with that of the bare one as ``base``."""
    held = {(one["set"], one["metric"]): one["value"] for one in bare}
    return [{**one, "base": held.get((one["set"], one["metric"]))} for one in tuned]


def task_rows(splits: Splits, seed: int) -> list[Example]:
    """Rows of the ``valid`` split, or of the training rows where there is none."""
    return some(splits.rows.get(VALID) or splits.rows[TRAIN], seed)


def note(run: RunDir, found: Sequence[Mapping[str, Any]]) -> None:
    """Write into a finished run's manifest what was found later, and seal it."""
    card = finished.card(run.path)
    made = json.loads(json.dumps(finite(list(found))))
    if card.get("effects") != made:
        sealing.rewrite_card(run, card | {"effects": made}, "side effects")


def _effect(name: str, metric: str, figure: Metric, better: str) -> Effect:
    told = {key: getattr(figure, key) for key in ("value", "low", "high", "unit", "n")}
    return {"set": name, "metric": metric, **told, "better": better}
