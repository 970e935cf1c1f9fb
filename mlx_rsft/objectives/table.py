"""The table of objectives, and the two ways to write one down.

On the command line ``dft:floor=0.1``, in TOML ``[objective] name = "dft"`` and
``floor = 0.1``. Both go through ``build``, which checks them alike.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.objectives import anchored, composition, gated, power
from mlx_rsft.objectives.composition import Composition
from mlx_rsft.objectives.tokens import (
    HEAD_FACTS,
    LAGGED,
    REFERENCE,
    STEP,
    Pull,
    TokenWeight,
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table.

    Attributes:
        factory: Makes the weight from the objective's own parameters.
        formula: The weight, in a few signs.
        about: When to use it, in a few words.
        needs: What it asks for beyond ``logp``.
        pull: Makes the pull that belongs to it, if it has one.
    """

    factory: Callable[..., TokenWeight]
    formula: str
    about: str
    source: str
    needs: tuple[str, ...] = ()
    pull: Callable[..., Pull] | None = None


OBJECTIVES: dict[str, Entry] = {
    "sft": Entry(power.sft, "1", "new facts and formats: the base model is weak", "-"),
    "dft": Entry(power.dft, "p", "the base model is capable", "arXiv:2508.05629"),
    "power": Entry(
        power.power, "p^alpha", "between sft and dft, by alpha", "arXiv:2510.00526"
    ),
    "blend": Entry(
        power.blend, "(1-a) + a p", "dft that still learns new tokens", "user reports"
    ),
    "floor": Entry(
        power.floor, "max(p, f)", "noisy labels and a new format", "authors of dft"
    ),
    "threshold": Entry(
        power.threshold,
        "1 if p >= tau",
        "drop outliers, strong base",
        "arXiv:2601.09195",
    ),
    "focal": Entry(
        power.focal,
        "(1-p)^(g-1) (..)",
        "rare tokens first, weak base",
        "arXiv:1708.02002",
    ),
    "eaft": Entry(
        gated.eaft,
        "H_top / ln 20",
        "instruct models: spare confident knowledge",
        "arXiv:2601.02151",
        needs=("top_entropy",),
    ),
    "deft": Entry(
        gated.deft,
        "p^C",
        "sft where unsure, dft where sure",
        "arXiv:2602.11424",
        needs=("collision",),
    ),
    "cayley": Entry(
        gated.cayley,
        "p^a, a from mean p",
        "dft that adapts to the batch",
        "arXiv:2602.11424",
        needs=(STEP,),
    ),
    "idft": Entry(
        gated.idft,
        "p^g, g from log p + H",
        "dft against surprising labels",
        "arXiv:2602.12222",
        needs=("entropy",),
    ),
    "chord-phi": Entry(
        gated.chord_phi, "p (1-p)", "keep entropy, instruct models", "arXiv:2508.11408"
    ),
    "infosft": Entry(
        gated.infosft,
        "p [logit t - logit p]+",
        "mid-confidence focus, less forgetting",
        "arXiv:2605.14967",
    ),
    "luffy": Entry(
        gated.luffy, "g p / (p+g)^2", "low but not hopeless tokens", "arXiv:2504.14945"
    ),
    "talr": Entry(
        gated.talr,
        "p^(1/tau)",
        "adapts to hard batches; floor it",
        "arXiv:2509.20758",
        needs=(STEP,),
    ),
    "psft": Entry(
        gated.psft,
        "p/p_old in trust region",
        "small safe steps, keeps general skill",
        "arXiv:2508.17784",
        needs=(LAGGED,),
    ),
    "prift": Entry(
        gated.prift,
        "p_base",
        "dft with a frozen judge",
        "arXiv:2606.09396",
        needs=(REFERENCE,),
    ),
    "cadft": Entry(
        gated.cadft,
        "p exp(-b max(0, z_row))",
        "whole rows may be wrong",
        "arXiv:2606.11206",
        needs=(STEP,),
    ),
    "iw-sft": Entry(
        gated.iw_sft,
        "(row likelihood ratio)^T",
        "curated rows, capable base",
        "arXiv:2507.12856",
        needs=(STEP, REFERENCE),
    ),
    "gem": Entry(
        anchored.gem,
        "1, pushed off softmax(z/b)",
        "keep diversity",
        "arXiv:2408.16673",
        pull=anchored.gem_pull,
    ),
    "label-smoothing": Entry(
        anchored.label_smoothing,
        "1-e, pulled to uniform",
        "calibration; a baseline",
        "arXiv:1512.00567",
        pull=anchored.label_smoothing_pull,
    ),
}


@dataclass(frozen=True, slots=True)
class Objective:
    """A chosen objective, ready for an engine.

    Attributes:
        parameters: Every parameter that was given.
        weight: The gate with everything that is composed with it.
        pulls: What draws the whole distribution somewhere.
        needs: What must be known of the tokens.
        refresh_every: Steps between refreshes of the lagged model.
    """

    name: str
    parameters: Mapping[str, object]
    weight: TokenWeight
    pulls: tuple[Pull, ...]
    needs: frozenset[str]
    composition: Composition
    refresh_every: int = 8

    def __str__(self) -> str:
        given = ",".join(f"{k}={_text(v)}" for k, v in self.parameters.items())
        return f"{self.name}:{given}" if given else self.name

    def as_table(self) -> dict[str, object]:
        """The objective as its TOML table."""
        return {"name": self.name, **self.parameters}

    @property
    def head_facts(self) -> tuple[str, ...]:
        """What the head is asked for beside the log-probability."""
        return tuple(name for name in HEAD_FACTS if name in self.needs)


def _text(value: object) -> str:
    if isinstance(value, tuple | list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse(text: str) -> dict[str, object]:
    """The table that ``name:parameter=value,...`` stands for.

    Raises:
        ConfigError: If a parameter has no value, or is given twice.
    """
    name, _, rest = text.partition(":")
    table: dict[str, object] = {"name": name.strip()}
    for part in filter(None, rest.split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if not value or key in table:
            raise ConfigError(
                f"{part!r} is not a parameter, or given twice.",
                where=f"objective {text!r}",
                hint="Write it like dft:floor=0.1.",
            )
        try:
            table[key] = float(value)
        except ValueError:
            table[key] = value
    return table


def build(table: Mapping[str, object]) -> Objective:
    """The objective that a table describes; its name may be in string form.

    Raises:
        ConfigError: For an unknown name or parameter, a missing one, or a bad value.
    """
    if not table.get("name"):
        raise ConfigError(
            "No objective is given.",
            where="objective.name",
            hint=f"Pass --objective NAME. {nearest('', OBJECTIVES)}",
        )
    named = parse(str(table["name"]))
    given = {**named, **{key: table[key] for key in table if key != "name"}}
    name, where = str(given.pop("name")), f"objective {table['name']!r}"
    if name not in OBJECTIVES:
        raise ConfigError(
            f"There is no objective {name!r}.",
            where=where,
            hint=nearest(name, OBJECTIVES),
        )
    try:
        return _built(name, OBJECTIVES[name], given)
    except ConfigError as problem:
        raise ConfigError(problem.message, where=where, hint=problem.hint) from None


def _built(name: str, entry: Entry, given: Mapping[str, object]) -> Objective:
    signature = inspect.signature(entry.factory).parameters
    known = [*signature, *composition.NAMES]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"There is no parameter {key!r}.", hint=nearest(key, known)
            )
    own: dict[str, float] = {}
    for key, parameter in signature.items():
        if key in given:
            own[key] = composition.as_number(key, given[key])
        elif parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"The parameter {key!r} is missing.")
    composed = composition.compose(given)
    pulls = (*((entry.pull(**own),) if entry.pull else ()), *composed.pulls())
    extra: dict[str, int] = (
        {"refresh_every": int(own["every"])} if "every" in own else {}
    )
    return Objective(
        name,
        dict(given),
        composed.weigh(entry.factory(**own)),
        pulls,
        frozenset(entry.needs) | composed.needs(),
        composed,
        **extra,
    )
