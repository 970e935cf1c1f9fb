"""Parameters in text form, held to what a factory says it takes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

from mlx_rsft.errors import ConfigError, nearest

Made = TypeVar("Made")


def build(factory: Callable[..., Made], given: Mapping[str, str]) -> Made:
    """What a factory makes of parameters that came as text.

    The names, types, choices and defaults are those of its arguments. One that takes
    any further name gets those as text.

    Raises:
        ConfigError: For an unknown parameter, a missing one, or a bad value.
    """
    signature = inspect.signature(factory, eval_str=True).parameters
    own = {key: p for key, p in signature.items() if p.kind is not p.VAR_KEYWORD}
    for key in given if len(own) == len(signature) else ():
        if key not in own:
            hint = nearest(key, own) if own else "It takes none."
            raise ConfigError(f"There is no parameter {key!r}.", hint=hint)
    for key, parameter in own.items():
        if key not in given and parameter.default is parameter.empty:
            raise ConfigError(f"The parameter {key!r} is missing.")
    return factory(
        **{
            key: _typed(key, text, own[key].annotation) if key in own else text
            for key, text in given.items()
        }
    )


def describe(factory: Callable[..., Any]) -> list[str]:
    """The parameters of a factory as they are written, with their defaults."""
    told: list[str] = []
    for key, parameter in inspect.signature(factory).parameters.items():
        empty = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_KEYWORD:
            told.append("...")
        else:
            told.append(f"{key}=" if empty else f"{key}={parameter.default}")
    return told


def _typed(key: str, text: str, kind: Any) -> object:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ConfigError(f"{key} = {text!r}.", hint=nearest(text, get_args(kind)))
        return text
    if kind not in (int, float):
        return text
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{key} = {text!r}: expected {what}.")
    return number
