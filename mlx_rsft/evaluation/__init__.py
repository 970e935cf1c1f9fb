"""Evaluation: what is measured on a split of rows, as one literal table."""

from mlx_rsft.evaluation.generate import Sampling
from mlx_rsft.evaluation.measuring import Measured, measure
from mlx_rsft.evaluation.spelling import Gauge, choose
from mlx_rsft.evaluation.table import METRICS

__all__ = ["METRICS", "Gauge", "Measured", "Sampling", "choose", "measure"]
