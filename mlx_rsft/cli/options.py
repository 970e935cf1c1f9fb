"""Options that several commands share; those of settings come from their fields."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from mlx_rsft import config, keys, settings
from mlx_rsft.config import Layer, Resolved

Command = TypeVar("Command", bound=Callable[..., Any])
GIVEN = "mlx_rsft.given"
PROFILE = "mlx_rsft.profile"
FLAGS = {
    "model.source": "--model",
    "data.source": "--data",
    "optimizer.name": "--optimizer",
    "adapter.init": "--init-adapter",
}
READING = (
    "data.format",
    "data.map",
    "data.encoding",
    "data.train_on",
    "data.template",
)
"""Settings that say how data files are read."""
TRAINING = (
    "model.source",
    "data.source",
    "training.epochs",
    "training.steps",
    "training.batch_size",
    "training.token_budget",
    "training.grad_checkpoint",
    "training.trunk_cache",
    "adapter.method",
    "adapter.layers",
    "adapter.keys",
    "adapter.rank",
    "adapter.scale",
    "adapter.rslora",
    "adapter.dropout",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.warmup",
    "optimizer.schedule",
    "optimizer.decay",
    "optimizer.final",
    "optimizer.weight_decay",
    "optimizer.clip_norm",
    "optimizer.lora_plus",
    *READING,
    "data.max_length",
    "data.overlong",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
    "seed",
)
"""Settings of a training run."""
KEEPING = (*settings.OF_ONE_RUN, "training.battery_floor")
"""Settings of one run alone: what it saves, which of its states it keeps."""
KINDS: dict[Any, Any] = {int: click.INT, float: click.FLOAT}


def flag_name(setting: str) -> str:
    """The flag of a setting: the last word of its key, with dashes."""
    last = setting.rsplit(".", 1)[-1].replace("_", "-")
    return FLAGS.get(setting, f"--{last}")


def setting_flags(*names: str) -> Callable[[Command], Command]:
    """Give a command the flags of these settings, ``--config`` and ``--set``.

    The command reads them with ``resolved``; whether a flag was typed is told by its
    source, so a flag with the default's value still outranks a file.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names):
            command = _setting_flag(name)(command)
        command = click.option(
            "--set",
            "assignments",
            metavar="TABLE.KEY=VALUE",
            multiple=True,
            help="Any setting by its full name; may be repeated.",
        )(command)
        return click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            metavar="FILE.toml",
            help="Read settings from a file; flags outrank it.",
        )(command)

    return decorate


def _setting_flag(name: str) -> Callable[[Command], Command]:
    key = keys.KEYS[name]
    default = keys.read(settings.Config(), name)
    choices = key.field.metadata.get("choices")
    shown = key.about if default in ("", ()) else f"{key.about}  [default: {default}]"
    options: dict[str, Any] = {"help": shown, "expose_value": False, "callback": _keep}
    if key.type is bool:
        options |= {"is_flag": True, "help": key.about}
    else:
        kind = click.Choice(choices) if choices else KINDS.get(key.type, click.STRING)
        options |= {"type": kind}
    return click.option(flag_name(name), name.replace(".", "__"), **options)


def objective_flag(command: Command) -> Command:
    """Give a command ``--objective``."""
    return click.option(
        "--objective",
        "objective__name",
        metavar="NAME[:KEY=VALUE,...]",
        help="What each token weighs; see mlx-rsft objectives. auto: probe the base "
        "model and choose.  [default: auto]",
        expose_value=False,
        callback=_keep,
    )(command)


def profile_flag(command: Command) -> Command:
    """Give a command ``--profile``, the layer right above the defaults."""
    return click.option(
        "--profile",
        type=click.Path(path_type=Path),
        metavar="FILE.toml",
        help="Settings that search has chosen; --config, --set and flags outrank it.",
        expose_value=False,
        callback=_keep_profile,
    )(command)


def _keep_profile(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> None:
    del parameter
    context.meta[PROFILE] = value


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    assert parameter.name is not None
    if context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT:
        given = context.meta.setdefault(GIVEN, {})
        given[parameter.name.replace("__", ".")] = value


def resolved(config_file: Path | None, assignments: tuple[str, ...]) -> Resolved:
    """The settings of the command: defaults < profile < file < ``--set`` < flags."""
    meta = click.get_current_context().meta
    given, profile = meta.get(GIVEN, {}), meta.get(PROFILE)
    layers: list[Layer] = [config.from_profile(profile)] if profile else []
    layers += [config.from_file(config_file)] if config_file else []
    layers.append(config.from_assignments(assignments))
    layers.append(Layer(config.FLAG, given))
    return config.resolve(layers)


adapter = click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Adapter folder, such as RUN/adapter.  [default: the bare model]",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
)


def answering(max_tokens: int) -> Callable[[Command], Command]:
    """Give a command ``--max-tokens``, ``--temperature`` and ``--thinking``."""

    def decorate(command: Command) -> Command:
        return click.option(
            "--max-tokens",
            type=click.IntRange(min=1),
            default=max_tokens,
            show_default=True,
            help="Longest answer, in tokens.",
        )(temperature(thinking(command)))

    return decorate


temperature = click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    help="0 takes the likeliest token each time.  [default: 0]",
)
thinking = click.option(
    "--thinking",
    is_flag=True,
    help="Let the model think first, where its chat template has a switch for it.",
)
