"""Which objective fits, by how likely the base model finds the demonstrations.

The cut-offs interpolate three published clusters of prior strength (about 0.8, 0.5 and
0.01); they are not tuned, and ``compare`` on a shifted split outranks them.

References:
    Li et al., arXiv:2510.00526.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

AUTO = "auto"
STRONG, MEDIUM, WEAK = 0.7, 0.4, 0.1
EASED_IN = "keep=special,schedule=ramp,until=0.2"


@dataclass(frozen=True, slots=True)
class Prior:
    """How likely the base model finds some demonstrations.

    Attributes:
        mean_p: Mean probability of their supervised tokens.
        nll: Mean negative log-likelihood per token, nats.
    """

    rows: int
    tokens: int
    mean_p: float
    nll: float


@dataclass(frozen=True, slots=True)
class Choice:
    """An objective in string form, and why."""

    objective: str
    reason: str


def choose(overall: Prior, by_tag: Mapping[str, Prior] | None = None) -> Choice:
    """The objective for demonstrations of this prior strength.

    Args:
        overall: All probed rows.
        by_tag: The rows of each tag, if every row has one. Where some tags are strong
            enough for rectification and others are not, only those get it.
    """
    fit = {tag: p for tag, p in (by_tag or {}).items() if p.mean_p >= MEDIUM}
    if not by_tag or not fit or len(fit) == len(by_tag):
        return _by_strength(
            overall.mean_p, "the base model gives the demonstrated tokens"
        )
    tokens = sum(prior.tokens for prior in fit.values())
    mean_p = sum(prior.mean_p * prior.tokens for prior in fit.values()) / tokens
    names = "+".join(sorted(fit))
    chosen = _by_strength(mean_p, f"on rows tagged {names} the base model gives them")
    others = ", ".join(
        f"{tag} {prior.mean_p:.2f}" for tag, prior in by_tag.items() if tag not in fit
    )
    return Choice(
        f"{chosen.objective},where={names}",
        f"{chosen.reason} Plain SFT for the other tags ({others}).",
    )


def _by_strength(mean_p: float, said: str) -> Choice:
    found = f"{said} a mean probability of {mean_p:.2f}"
    if mean_p >= STRONG:
        return Choice(
            f"dft:floor=0.1,{EASED_IN}",
            f"{found}: it is capable here, so unlikely tokens are damped by p.",
        )
    if mean_p >= MEDIUM:
        return Choice(
            f"power:alpha=0.5,floor=0.1,anchor=k3,{EASED_IN}",
            f"{found}: half strength, and an anchor against drift.",
        )
    if mean_p >= WEAK:
        return Choice(
            f"power:alpha=0.2,floor=0.1,{EASED_IN}",
            f"{found}: it has much to learn, so unlikely tokens are damped lightly.",
        )
    return Choice("sft", f"{found}: too weak to rectify, so this is plain SFT.")
