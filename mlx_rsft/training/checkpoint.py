"""A run's state between two steps, as a folder that is complete or not there at all.

CHECKPOINT/  state.safetensors  checkpoint.json
             adapter/  if it is kept for good: what it would be if the run ended there

Random numbers and the schedule are functions of (seed, step), so the step stands for
both. Each file is sealed with a hash, and what is not as it was written is refused.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map_with_path, tree_unflatten

from mlx_rsft import files, manifest
from mlx_rsft.errors import RunError
from mlx_rsft.models import tensor_file
from mlx_rsft.training.step import Stepper

STATE, FACTS, ADAPTER = "state.safetensors", "checkpoint.json", "adapter"
FILES = (STATE, FACTS)
FORMAT = 1
NAME = re.compile(r"step-\d{6,}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint says of itself beside the state.

    Attributes:
        step: Optimizer steps done.
        run: Hash of what the run is known by.
        evals: Lines of ``evals.jsonl`` at that moment.
        spent: What the run had taken until then.
        ease: What its learning rates are multiplied by from here on.
    """

    step: int
    run: str
    evals: int
    spent: Mapping[str, Any]
    ease: float = 1.0


def write(folder: Path, stepper: Stepper, facts: Facts) -> None:
    """Save the state in ``folder``, on disk before it is named.

    Raises:
        RunError: If it cannot be written; the checkpoints before it are as they were.
    """
    place = path(folder, facts.step)
    try:
        with files.new_folder(place) as scratch:
            state = scratch / STATE
            tensor_file.write(state, _state(stepper))
            record = {
                "format": FORMAT,
                **asdict(facts),
                "state_sha256": files.sha256(state),
            }
            files.write_json(scratch / FACTS, manifest.sealed(record))
            files.sync(scratch)
        files.sync(folder)
    except OSError as problem:
        raise RunError(
            f"The checkpoint of step {facts.step} cannot be written ({problem}).",
            where=str(folder),
            hint="Make room; --resume then goes on from the checkpoint before it.",
        ) from problem


def path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:06d}"


def found(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the oldest first."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if NAME.fullmatch(p.name)), key=step_of)


def step_of(place: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(place.name.removeprefix("step-"))


def for_good(folder: Path) -> list[int]:
    """The steps whose checkpoints are kept for good, whoever asks for it now."""
    return [step_of(place) for place in found(folder) if (place / ADAPTER).is_dir()]


def tidy(folder: Path, keep: Collection[int]) -> None:
    """Remove all but those of some steps, and what a kill has left half-written."""
    for old in found(folder):
        if step_of(old) not in keep:
            old.replace(folder / f".{old.name}")  # never half of one under its name
    for left in folder.glob(".step-*"):
        shutil.rmtree(left)


def read(place: Path) -> Facts:
    """What a checkpoint says of itself, once all of it is known to be whole.

    Raises:
        RunError: If anything in it is not as it was written.
    """
    try:
        text = (place / FACTS).read_text(encoding="utf-8")
        state_sha256 = files.sha256(place / STATE)
        record = manifest.unsealed(text)
    except OSError as problem:
        _refuse(place, f"{Path(problem.filename).name}: {problem.strerror}")
    except (ValueError, RecursionError):
        _refuse(place, f"{FACTS} is not as it was written")
    if record.pop("format") != FORMAT:
        raise RunError("Another version has written the checkpoint.", where=str(place))
    if record.pop("state_sha256") != state_sha256:
        _refuse(place, f"{STATE} is not as it was written")
    facts = Facts(**record)
    if place.name != path(place.parent, facts.step).name:
        _refuse(place, f"it is one of step {facts.step}")
    return facts


def restore(place: Path, stepper: Stepper) -> None:
    """Put the state of a checkpoint that was ``read`` on model and optimizer.

    Raises:
        RunError: If it is the state of other parameters.
    """
    stepper.optimizer.init(stepper.split.model.trainable_parameters())
    held: Any = mx.load(str(place / STATE))
    wanted = {name: value for name, value in _state(stepper).items() if _fixed(name)}
    if _outline(wanted) != _outline({n: v for n, v in held.items() if _fixed(n)}):
        _refuse(place, "it holds other parameters than this model trains")
    mx.eval(held)
    trained = _part(held, "trained")
    stepper.split.model.update(tree_unflatten(list(trained.items())))
    optimizer = _part(held, "optimizer")

    def of(name: str, _: mx.array) -> mx.array:
        return optimizer[name]

    stepper.optimizer.state = tree_map_with_path(of, stepper.optimizer.state)
    stepper.references.restore(_part(held, "references"))


def is_finite(stepper: Stepper) -> bool:
    """Whether all that is trained, and all that the optimizer remembers, is finite."""
    values = [v for name, v in _state(stepper).items() if _fixed(name)]
    floats = [v for v in values if mx.issubdtype(v.dtype, mx.floating)]
    return bool(mx.all(mx.stack([mx.isfinite(v).all() for v in floats])).item())


def _state(stepper: Stepper) -> dict[str, mx.array]:
    parts: dict[str, Any] = {
        "trained": stepper.split.model.trainable_parameters(),
        "optimizer": stepper.optimizer.state,
        "references": stepper.references.state(),
    }
    return {
        f"{part}/{name}": value
        for part, tree in parts.items()
        for name, value in _leaves(tree)
    }


def _leaves(tree: Any) -> list[tuple[str, mx.array]]:
    return tree_flatten(tree)  # pyright: ignore


def _part(state: Mapping[str, mx.array], part: str) -> dict[str, mx.array]:
    start = f"{part}/"
    return {n.removeprefix(start): v for n, v in state.items() if n.startswith(start)}


def _fixed(name: str) -> bool:
    return not name.startswith("references/")


def _outline(state: Mapping[str, mx.array]) -> dict[str, tuple[Any, Any]]:
    return {name: (value.shape, value.dtype) for name, value in state.items()}


def _refuse(place: Path, reason: str) -> NoReturn:
    raise RunError(
        f"The checkpoint is damaged: {reason}.",
        where=str(place),
        hint="Remove this folder; --resume then goes on from the one before it.",
    )
