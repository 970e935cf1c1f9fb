"""Evaluation: what is measured on a split of rows, as one literal table."""

from mlx_rsft.evaluation.table import METRICS, Measure, choose, measure

__all__ = ["METRICS", "Measure", "choose", "measure"]
