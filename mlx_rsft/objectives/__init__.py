"""Objectives: what each supervised token weighs, and what pulls its distribution.

An objective is a pure function from token facts to weights. How the weighted loss is
computed with little memory is the business of ``mlx_rsft.loss``.
"""

from mlx_rsft.objectives.table import OBJECTIVES, Entry, Objective, build, parse
from mlx_rsft.objectives.tokens import Known, Pull, TokenStats, TokenWeight

__all__ = [
    "OBJECTIVES",
    "Entry",
    "Known",
    "Objective",
    "Pull",
    "TokenStats",
    "TokenWeight",
    "build",
    "parse",
]
