"""How metrics are written down, and the chosen ones ready for use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.evaluation.table import METRICS, Entry, PerRow
from mlx_rsft.evaluation.values import Values
from mlx_rsft.records import Metric

WHERE = "evaluation.metrics"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A chosen metric, ready to measure."""

    entry: Entry
    per_row: PerRow

    @property
    def better(self) -> str:
        """``higher`` or ``lower``."""
        return self.entry.better

    def summarise(self, values: Values) -> Metric:
        """The figure over some rows."""
        return self.entry.summary(values, self.entry.unit)


def choose(names: Sequence[str]) -> dict[str, Gauge]:
    """The named metrics; with no name, all that need one forward pass only.

    Raises:
        ConfigError: If there is no such metric.
    """
    cheap = [name for name, entry in METRICS.items() if not entry.needs]
    return {name: _gauge(name) for name in names or cheap}


def _gauge(name: str) -> Gauge:
    if name not in METRICS:
        raise ConfigError(
            f"There is no metric {name!r}.", where=WHERE, hint=nearest(name, METRICS)
        )
    entry = METRICS[name]
    return Gauge(entry, entry.factory())
