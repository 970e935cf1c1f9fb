"""Bundled general questions: what a model knew before, and may have forgotten since.

Short questions with four choices each, in several languages, tagged by language. No
measure of ability: a fixed place to stand on, the same for every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlx_rsft.data.conversation import Example
from mlx_rsft.data.tokenizing import ChatTokenizer
from mlx_rsft.evaluation import bundled
from mlx_rsft.evaluation.evidence import BASE, ENTROPY
from mlx_rsft.evaluation.spelling import Gauge, choose

NAME = "general"
FILE = Path(__file__).with_name("general.jsonl")
CHOICES = "choices"


def examples(tokenizer: ChatTokenizer) -> list[Example]:
    """The questions as tokens of a model.

    Raises:
        ModelError: If the model has no chat template.
    """
    return bundled.examples(FILE, tokenizer)


def fitting(metrics: Mapping[str, Gauge]) -> dict[str, Gauge]:
    """Those of the metrics that fit the questions, and always the multiple choice."""
    kept = {
        name: gauge
        for name, gauge in metrics.items()
        if gauge.entry.needs in ((), (BASE,), (ENTROPY,))
    }
    return kept | choose([CHOICES])
