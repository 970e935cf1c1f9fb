"""Gates that look at more than a power of p: shapes, entropy, the step, other models."""

from __future__ import annotations

import math

import mlx.core as mx

from mlx_rsft.errors import ConfigError
from mlx_rsft.objectives.limits import above, at_least
from mlx_rsft.objectives.tokens import TOP, TokenStats, TokenWeight, needed, row_means

RATIO_NATS = math.log(16.0)


def chord_phi() -> TokenWeight:
    """Mid-confidence tokens first: weight ``p (1 - p)``, in [0, 1/4].

    Keeps entropy where DFT collapses it; made for instruct models beside RL.

    References:
        CHORD, arXiv:2508.11408.
    """
    return lambda stats: stats.p * (1 - stats.p)


def luffy(gamma: float = 0.1) -> TokenWeight:
    """Weight ``gamma p / (p + gamma)^2``, in [0, 1/4], largest at ``p = gamma``.

    Args:
        gamma: Above 0.

    References:
        LUFFY, arXiv:2504.14945.
    """
    above("gamma", gamma, 0)
    return lambda stats: gamma * stats.p / mx.square(stats.p + gamma)


def infosft(target: float = 0.93) -> TokenWeight:
    """Weight ``p [logit(target) - logit(p)]+``, in [0, logit(target) + 0.28].

    Nothing is left to learn above the target probability, and little is risked on
    tokens far below it.

    Args:
        target: Probability to stop at, 0.5 to 0.999.

    References:
        InfoSFT, arXiv:2605.14967.
    """
    if not 0.5 <= target <= 0.999:
        raise ConfigError(f"target = {target:g}: must be between 0.5 and 0.999.")
    goal = math.log(target / (1 - target))

    def weight(stats: TokenStats) -> mx.array:
        logit = stats.logp - mx.log1p(-mx.minimum(stats.p, 1 - 1e-7))
        return stats.p * mx.maximum(goal - logit, 0)

    return weight


def eaft(exponent: float = 1.0) -> TokenWeight:
    """Weight by the entropy of the 20 likeliest tokens over ``ln 20``, in [0, 1].

    Damps confident conflicts, where the model is sure of another token; an unsure
    model learns as with SFT. Hurts where confident knowledge is to be overwritten.

    Args:
        exponent: Above 0.

    References:
        EAFT, arXiv:2601.02151.
    """
    above("exponent", exponent, 0)

    def weight(stats: TokenStats) -> mx.array:
        share = mx.maximum(needed(stats.top_entropy), 0) / math.log(TOP)
        return mx.minimum(share, 1) ** exponent

    return weight


def deft() -> TokenWeight:
    """Weight ``p ** C`` with ``C`` the collision probability, in [0, 1].

    SFT where the model spreads its bets, DFT where it has one.

    References:
        DEFT, arXiv:2602.11424.
    """
    return lambda stats: mx.exp(needed(stats.collision) * stats.logp)


def cayley() -> TokenWeight:
    """Weight ``p ** a`` with ``a`` from ``mean(p) / 2`` up to 1 as p grows, in [0, 1].

    ``a = a0 + (1 - a0) p / (2 - p)``, ``a0`` half the mean probability of the step.

    References:
        arXiv:2602.11424.
    """

    def weight(stats: TokenStats) -> mx.array:
        start = 0.5 * stats.p.mean()
        alpha = start + (1 - start) * stats.p / (2 - stats.p)
        return mx.exp(alpha * stats.logp)

    return weight


def idft(beta: float = 1.0) -> TokenWeight:
    """Weight ``p ** g`` with ``g = clip(exp(-(log p + H) / beta), 0.1, 2)``, in [0, 1].

    A token less likely than the entropy ``H`` leads to expect is damped more.

    Args:
        beta: Temperature, above 0.

    References:
        IDFT, arXiv:2602.12222.
    """
    above("beta", beta, 0)

    def weight(stats: TokenStats) -> mx.array:
        surprise = -(stats.logp + needed(stats.entropy)) / beta
        gamma = mx.clip(mx.exp(mx.minimum(surprise, 1.0)), 0.1, 2.0)
        return mx.exp(gamma * stats.logp)

    return weight


def talr() -> TokenWeight:
    """Weight ``p ** (1 / tau)``, ``tau`` the median NLL of the step, in [0, 1].

    Adapts DFT to how hard the step is. The authors floor it: ``talr:floor=0.1``.

    References:
        TALR, arXiv:2509.20758.
    """

    def weight(stats: TokenStats) -> mx.array:
        tau = mx.maximum(mx.median(-stats.logp), 1e-6)
        return mx.exp(stats.logp / tau)

    return weight


def psft(epsilon: float = 0.28, every: float = 8) -> TokenWeight:
    """SFT in a trust region: ``p / p_old`` while ``p < (1 + eps) p_old``, else 0.

    Starts each stretch as SFT and stops a token whose probability has risen enough; in
    [0, 1 + epsilon]. ``p_old`` is the model ``every`` steps ago or less.

    Args:
        epsilon: Allowed relative rise, above 0.
        every: Steps between refreshes of the old model.

    References:
        PSFT, arXiv:2508.17784.
    """
    above("epsilon", epsilon, 0)
    at_least("every", every, 1)

    def weight(stats: TokenStats) -> mx.array:
        rise = stats.logp - needed(stats.known.lagged_logp)
        ratio = mx.exp(mx.minimum(rise, 1.0 + math.log1p(epsilon)))
        return mx.where(ratio < 1 + epsilon, ratio, 0.0)

    return weight


def prift() -> TokenWeight:
    """Weight ``p_base``, the probability under the untrained base model, in [0, 1].

    DFT with a frozen judge: what was unlikely at the start stays damped, and the
    weights cannot reinforce themselves.

    References:
        PriFT, arXiv:2606.09396.
    """
    return lambda stats: mx.exp(needed(stats.known.reference_logp))


def cadft(beta: float = 1.0) -> TokenWeight:
    """DFT that damps hard rows: ``p exp(-beta max(0, z))``, in [0, 1].

    ``z`` is the z-score of the row's mean NLL among the rows of the step.

    Args:
        beta: At least 0.

    References:
        CADFT, arXiv:2606.11206.
    """
    at_least("beta", beta, 0)

    def weight(stats: TokenStats) -> mx.array:
        mean_N = row_means(-stats.logp, stats.known)
        share_N = 1 / needed(stats.known.row_tokens)
        rows = mx.maximum(share_N.sum(), 1)
        centre = (mean_N * share_N).sum() / rows
        spread = mx.sqrt((mx.square(mean_N - centre) * share_N).sum() / rows)
        score = (mean_N - centre) / mx.maximum(spread, 1e-6)
        return stats.p * mx.exp(-beta * mx.maximum(score, 0))

    return weight


def iw_sft(temperature: float = 1.0) -> TokenWeight:
    """Weight rows by how much likelier they have become: in [0, 16].

    ``min(16, exp(T mean_t log(p / p_base)))``, one weight for all tokens of a row.

    Args:
        temperature: ``T``, at least 0.

    References:
        iw-SFT, arXiv:2507.12856.
    """
    at_least("temperature", temperature, 0)

    def weight(stats: TokenStats) -> mx.array:
        rise = stats.logp - needed(stats.known.reference_logp)
        nats = temperature * row_means(rise, stats.known)
        return mx.exp(mx.minimum(nats, RATIO_NATS))

    return weight
