"""Which state of a run is its best, and when a run has gone on long enough.

Both are read off the lines of ``evals.jsonl``, so a run that is resumed knows them too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from mlx_rsft import records
from mlx_rsft.data.splits import is_validation
from mlx_rsft.errors import ConfigError, RsftError, nearest, raise_together
from mlx_rsft.evaluation import METRICS
from mlx_rsft.settings import Config, TrainingSettings
from mlx_rsft.workflows import assemble

DRIFT = "drift_kl"
NEEDED_BY = ("patience", "least_gain", "kl_budget")


@dataclass(frozen=True, slots=True)
class Aim:
    """By which figure states are compared, and what ends a run.

    Attributes:
        sign: 1 where higher is better, -1 where lower is.
        least_gain: By how much a state must be better than the best before it.
        patience: Looks without a better one that end a run; 0: none do.
        kl_budget: Divergence from the base, nats per token, that ends a run; 0: none.
    """

    split: str
    metric: str
    sign: float
    least_gain: float
    patience: int
    kl_budget: float


@dataclass(frozen=True, slots=True)
class Standing:
    """The step of the best state so far, if there is one, and why the run is to end."""

    best: int | None = None
    stop: str = ""


def aim(config: Config) -> Aim | None:
    """What the settings ask for; None if the last state is the one to keep.

    Raises:
        ConfigError: If they ask for what is not looked at.
    """
    training = config.training
    raise_together([*_unused(training)])
    if not training.best:
        return None
    split, _, metric = training.best.partition(".")
    gauges = assemble.metrics(config)
    problems: list[RsftError] = []
    if not is_validation(split) or not metric:
        problems.append(_problem(f"{training.best!r} names no validation split."))
    elif metric not in gauges:
        problems.append(
            _problem(f"{metric!r} is not measured. {nearest(metric, gauges)}")
        )
    elif gauges[metric].better not in ("higher", "lower"):
        problems.append(_problem(f"Of {metric} neither more nor less is better."))
    if training.kl_budget and DRIFT not in gauges:
        problems.append(
            ConfigError(
                f"A budget needs {DRIFT} among the metrics.",
                where="training.kl_budget",
                hint=f"Pass --set evaluation.metrics=nll,{DRIFT}.",
            )
        )
    raise_together(problems)
    return Aim(
        split,
        metric,
        1.0 if gauges[metric].better == "higher" else -1.0,
        training.least_gain,
        training.patience,
        training.kl_budget,
    )


def _unused(training: TrainingSettings) -> Iterable[RsftError]:
    for name in NEEDED_BY:
        if getattr(training, name) and not training.best:
            yield ConfigError(
                f"{name} is about looks at the best state, and none is asked for.",
                where=f"training.{name}",
                hint="Pass --best valid.nll --eval-every STEPS too.",
            )
    if training.best and not training.eval_every:
        yield _problem("Without looks during the run no state is the best.")


def _problem(text: str) -> ConfigError:
    hint = f"Write SPLIT.METRIC, such as --best valid.{next(iter(METRICS))}, with "
    return ConfigError(text, where="training.best", hint=hint + "--eval-every STEPS.")


def so_far(evals: Path, aim: Aim | None, until: int | None = None) -> Standing:
    """Where a run stands by its ``evals.jsonl``, as of some step; without an aim, nowhere."""
    looks = records.held_lines(evals) if aim else []
    seen = [look for look in looks if until is None or look["step"] <= until]
    return standing(seen, aim) if aim else Standing()


def standing(looks: Iterable[Mapping[str, Any]], aim: Aim) -> Standing:
    """Where a run stands after some looks, given as lines of ``evals.jsonl``."""
    # Nothing that was looked at may be within the budget; the beginning is.
    best, reached, worse = 0 if aim.kl_budget else None, float("-inf"), 0
    for step, lines in groupby(looks, key=itemgetter("step")):
        figures = {e["metric"]: e["value"] for e in lines if e["split"] == aim.split}
        drift = figures.get(DRIFT) if aim.kl_budget else 0.0
        if drift is None or drift > aim.kl_budget > 0:
            return Standing(best, f"{DRIFT} went over {aim.kl_budget:g} at step {step}")
        value = figures.get(aim.metric)
        if value is not None and aim.sign * value > reached + aim.least_gain:
            best, reached, worse = step, aim.sign * value, 0
        else:
            worse += 1
        if worse == aim.patience > 0:
            return Standing(best, f"{aim.split}.{aim.metric} is best at step {best}")
    return Standing(best)
