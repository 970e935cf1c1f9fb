"""How metrics are written down, and the chosen ones ready for use.

``name``, ``name:parameter=value,...`` or ``module:function``; several are joined by
commas. A comma that no parameter and no metric follows belongs to the value before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.evaluation import parameters, user, written
from mlx_rsft.evaluation.evidence import SAMPLES
from mlx_rsft.evaluation.generate import Sampling
from mlx_rsft.evaluation.table import METRICS, USER, Entry, PerRow
from mlx_rsft.evaluation.values import Values
from mlx_rsft.records import Metric

WHERE = "evaluation.metrics"
BEGINS = re.compile(r"\s*[A-Za-z_][\w.]*\s*(:.*)?", re.DOTALL)
PARAMETER = re.compile(r"\s*(?P<key>[A-Za-z_]\w*)\s*=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Gauge:
    """A chosen metric, ready to measure.

    Attributes:
        name: As it is spelled.
        given: Its parameters.
        sampling: How answers are sampled, if it looks at samples.
    """

    name: str
    entry: Entry
    per_row: PerRow
    given: dict[str, str]
    sampling: Sampling | None = None

    @property
    def better(self) -> str:
        """``higher``, ``lower``, ``near 1`` or ``neither``."""
        return self.entry.better

    def summarise(self, values: Values) -> Metric:
        """The figure over some rows."""
        return self.entry.summary(values, self.entry.unit)

    def spread(self, examples: Sequence[Example]) -> list[Gauge]:
        """Itself, and what it stands for besides on these rows."""
        if self.given or not self.entry.spread:
            return [self]
        more = [
            _spelled(f"{self.name}:{key}={value}")
            for key, value in self.entry.spread(examples)
        ]
        return [self, *more]


def choose(names: Sequence[str], sampling: Sampling | None = None) -> dict[str, Gauge]:
    """The named metrics; with no name, all that need one forward pass only.

    Args:
        names: In any of the forms above.
        sampling: For metrics that look at samples; the defaults if left out.

    Raises:
        ConfigError: If there is no such metric, or a parameter is not to be had.
    """
    cheap = [name for name, entry in METRICS.items() if not entry.needs]
    gauges = [_spelled(text) for text in _separate(names or cheap)]
    return {
        gauge.name: replace(gauge, sampling=sampling or Sampling())
        if SAMPLES in gauge.entry.needs
        else gauge
        for gauge in gauges
    }


def _separate(names: Sequence[str]) -> list[str]:
    """One text per metric, however commas were taken before."""
    found: list[str] = []
    for part in ",".join(names).split(","):
        if BEGINS.fullmatch(part) or not found:
            found.append(part.strip())
        else:
            found[-1] += f",{part}"
    return found


def _spelled(text: str) -> Gauge:
    name, _, rest = text.partition(":")
    if name in METRICS:
        given = _given(text, rest)
        entry = METRICS[name]
        try:
            return Gauge(text, entry, parameters.build(entry.factory, given), given)
        except ConfigError as problem:
            raise ConfigError(
                problem.message, where=f"metric {text!r}", hint=problem.hint
            ) from None
    if user.ADDRESS.fullmatch(text):
        return Gauge(text, USER, written.judged(user.load(text)), {})
    raise ConfigError(
        f"There is no metric {name!r}.",
        where=WHERE,
        hint=f"{nearest(name, METRICS)} Your own is written module:function, and a "
        "comma in a pattern [,].",
    )


def _given(text: str, rest: str) -> dict[str, str]:
    given: dict[str, str] = {}
    last = ""
    for part in rest.split(",") if rest else ():
        match = PARAMETER.fullmatch(part)
        if match and match["key"] not in given:
            last = match["key"]
            given[last] = match["value"]
        elif match or not last:
            raise ConfigError(
                f"{part!r} is not a parameter, or given twice.",
                where=f"metric {text!r}",
                hint="Write it like numeric:tolerance=0.01.",
            )
        else:
            given[last] += f",{part}"
    return given
