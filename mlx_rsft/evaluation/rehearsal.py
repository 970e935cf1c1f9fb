"""A check before the work: could every metric judge every row?"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_rsft.data.conversation import Example
from mlx_rsft.evaluation.evidence import OPTIONS, SAMPLES, WRITTEN, Evidence, Options
from mlx_rsft.evaluation.generate import Answer
from mlx_rsft.evaluation.likelihood import RowScore
from mlx_rsft.evaluation.spelling import Gauge

JUDGING = frozenset({WRITTEN, SAMPLES, OPTIONS})


def check(examples: Sequence[Example], gauges: Sequence[Gauge]) -> None:
    """Let metrics judge the demonstrations, as if the model had written them.

    So a row that a metric cannot use is named at once, and not after an hour of writing.

    Raises:
        RsftError: What the metric says of the row.
    """
    written = [Answer(row.answer, 1, ended=True) for row in examples]
    for gauge in gauges:
        if JUDGING.intersection(gauge.entry.needs):
            count = gauge.sampling.samples if gauge.sampling else 0
            samples = [[answer] * count for answer in written]
            gauge.per_row(
                Evidence(examples, (), written, samples, score_options=_alike)
            )


def _alike(options: Options) -> list[list[RowScore]]:
    score = RowScore(0.0, 1.0, 1, 1, exact=True)
    return [[score] * len(texts) for texts in options]
