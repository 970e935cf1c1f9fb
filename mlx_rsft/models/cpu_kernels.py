"""Stand-ins for what mlx's CPU backend is slow at inside a model: attention and gates.

The model's own ``__call__`` stays in charge; only functions that its module imports are
exchanged, while a block runs. They compute the same to float32 rounding, with fast
exponentials and in less memory: causal attention skips what lies in the future, and what
the backward pass needs again is computed again. On other backends nothing is exchanged.

Shapes: B rows, K key heads, G query heads per key head, T positions, D head width.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlx_rsft import exponential, machine
from mlx_rsft.models import cpu_attention
from mlx_rsft.models.cpu_attention import Step, anew, causal_attention, with_backward

HOME = "mlx_lm.models."


def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return gate * exponential.sigmoid(gate) * x


def _swiglu_backward(primals: Any, cotangent: mx.array, output: Any) -> Any:
    del output
    gate, x = anew(primals, cotangent)
    return _swiglu_slopes(gate, x, exponential.sigmoid(gate), cotangent)


@mx.compile
def _swiglu_slopes(gate: Any, x: Any, s: Any, g: Any) -> Any:
    return g * x * (s * (1.0 + gate * (1.0 - s))), g * (gate * s)


swiglu: Step = with_backward(_swiglu, _swiglu_backward)
"""``silu(gate) * x``."""


def _gelu(x: mx.array) -> mx.array:
    # (1 + tanh(u)) / 2 is the logistic function at 2 u.
    return x * exponential.sigmoid(_twice_inner(x))


def _gelu_backward(primal: mx.array, cotangent: mx.array, output: Any) -> Any:
    del output
    (primal,) = anew([primal], cotangent)
    return _gelu_slope(primal, exponential.sigmoid(_twice_inner(primal)), cotangent)


@mx.compile
def _twice_inner(x: Any) -> Any:
    return INNER * x * (1.0 + CUBIC * x * x)


@mx.compile
def _gelu_slope(x: Any, s: Any, g: Any) -> Any:
    return g * (s + x * s * (1.0 - s) * INNER * (1.0 + 3.0 * CUBIC * x * x))


INNER, CUBIC = 2.0 * math.sqrt(2.0 / math.pi), 0.044715
gelu_approx: Step = with_backward(_gelu, _gelu_backward)
"""GELU by its approximation with a hyperbolic tangent."""


def attention(
    queries: mx.array,
    keys: mx.array,
    values: mx.array,
    cache: Any = None,
    scale: float = 1.0,
    mask: Any = None,
    sinks: Any = None,
) -> mx.array:
    """mlx-lm's attention; where it is plainly causal, ours."""
    plain = cache is None and sinks is None and isinstance(mask, str)
    if plain and exponential.applies(queries) and queries.shape[2] == keys.shape[2]:
        return causal_attention(queries, keys, values, scale)
    from mlx_lm.models import base

    stock: Step = base.scaled_dot_product_attention
    return stock(queries, keys, values, cache, scale, mask, sinks)


class _Layers(ModuleType):
    """``mlx.nn`` with another ``gelu_approx``."""

    def __getattr__(self, name: str) -> Any:
        return getattr(nn, name)


_layers: Any = _Layers("mlx.nn")
_layers.gelu_approx = gelu_approx


def _stand_ins() -> dict[str, tuple[Any, Any]]:
    """By the name that model modules know it by: mlx-lm's, and ours."""
    from mlx_lm.models import activations, base

    return {
        "scaled_dot_product_attention": (base.scaled_dot_product_attention, attention),
        "swiglu": (activations.swiglu, swiglu),
        "nn": (nn, _layers),
    }


@contextmanager
def exchanged(model: nn.Module) -> Generator[None]:
    """Put the stand-ins where the model's code looks for what it calls, for a block."""
    if machine.backend() != "cpu":
        yield
        return
    names = {type(part).__module__ for part in model.modules()}
    homes: list[Any] = [sys.modules[name] for name in names if name.startswith(HOME)]
    before = [
        (home, name, stock, ours)
        for name, (stock, ours) in _stand_ins().items()
        for home in homes
        if getattr(home, name, None) is stock
    ]
    for home, name, _, ours in before:
        setattr(home, name, ours)
    try:
        yield
    finally:
        for home, name, stock, _ in before:
            setattr(home, name, stock)


def _attend_outline(q: mx.array, keys: mx.array, values: mx.array) -> list[mx.array]:
    """Something whose backward pass reads what that of attention reads, and no more."""
    met = q * keys[:, :, None] + mx.square(values)[:, :, None]
    return [mx.exp(met), mx.exp(met[..., :1])]


def _gather_outline(gather: Step, x: mx.array, *given: Any, **named: Any) -> mx.array:
    """A product whose backward pass reads its input; that of mlx cannot be written out."""
    product = mx.stop_gradient(gather(mx.stop_gradient(x), *given, **named))
    return product + mx.square(x).sum()


@contextmanager
def outlined() -> Generator[None]:
    """Let the stand-ins only say what they take, make and keep for the backward pass.

    For readers of mlx's graph, which cannot look into functions with a backward pass of
    their own.
    """
    shapes: dict[str, Step] = {
        "swiglu": operator.mul,
        "gelu_approx": mx.square,
    }
    before = {name: globals()[name] for name in shapes}
    globals().update(shapes)
    attend, cpu_attention.attend = cpu_attention.attend, _attend_outline
    _layers.gelu_approx = shapes["gelu_approx"]
    whole: Any = mx
    gather = whole.gather_mm
    whole.gather_mm = partial(_gather_outline, gather)
    try:
        yield
    finally:
        globals().update(before)
        cpu_attention.attend = attend
        _layers.gelu_approx = gelu_approx
        whole.gather_mm = gather
