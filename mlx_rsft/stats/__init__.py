"""Values with their uncertainty, and what tells a difference from chance.

Rows are the units of sampling, not tokens; training seeds are a second level above them.
"""

from mlx_rsft.stats.exact import holm, mcnemar, sign_test
from mlx_rsft.stats.intervals import Z95, exponential, proportion, ratio
from mlx_rsft.stats.paired import DRAWS, Difference, difference, influences
from mlx_rsft.stats.power import detectable, rows_needed, rows_to_rule_out
from mlx_rsft.stats.student import student

__all__ = [
    "DRAWS",
    "Z95",
    "Difference",
    "detectable",
    "difference",
    "exponential",
    "holm",
    "influences",
    "mcnemar",
    "proportion",
    "ratio",
    "rows_needed",
    "rows_to_rule_out",
    "sign_test",
    "student",
]
