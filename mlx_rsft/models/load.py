"""A model in memory: weights in the chosen precision, tokenizer, and what was noted."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlx_rsft import files, machine
from mlx_rsft.errors import ModelError
from mlx_rsft.models import quantize, rope, sound, source
from mlx_rsft.models.download import Report
from mlx_rsft.settings import ModelSettings

IDENTITY = ("config.json", "tokenizer.json", "*.safetensors")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen base model and its tokenizer.

    Attributes:
        model: mlx-lm's model, every parameter frozen.
        tokenizer: mlx-lm's tokenizer wrapper.
        source: What the user called it.
        precision: The type it is computed in, or ``stored``; quantised weights have
            their scales in it.
        notes: What was corrected on the way, in plain sentences.
    """

    model: nn.Module
    tokenizer: Any
    path: Path
    source: str
    precision: str
    notes: tuple[str, ...]

    def as_record(self) -> dict[str, Any]:
        """The model's identity for the manifest; hashes its files."""
        return {"source": self.source, "path": str(self.path), **self.weights()}

    def weights(self) -> dict[str, Any]:
        """What the weights are, wherever they lie and whatever they are called."""
        return {
            "precision": self.precision,
            "quantised": quantize.layers(self.model),
            "sha256": identity(self.path),
        }


def identity(folder: Path) -> dict[str, str]:
    """Hashes of the files of a model folder that decide what it answers."""
    found = sorted(path for kind in IDENTITY for path in folder.glob(kind))
    return {path.name: _sha256(path, files.stamp(path)) for path in found}


@functools.cache
def _sha256(path: Path, stamp: tuple[int, int, int]) -> str:
    """Read once by a process that begins many runs, unless the file is another now."""
    del stamp
    return files.sha256(path)


WITHOUT_WINDOW = ("gemma2",)
"""Families whose sliding windows mlx-lm leaves out: every block sees everything."""
TOKENIZER = (
    *("tokenizer*", "*.jinja", "*vocab*", "merges.txt", "special_tokens_map.json"),
    *("added_tokens.json", "config.json", "generation_config.json"),
)


def tokenizer_identity(folder: Path) -> dict[str, str]:
    """Hashes of the files of a model folder that decide how text becomes tokens."""
    found = sorted({path for kind in TOKENIZER for path in folder.glob(kind)})
    return {path.name: files.sha256(path) for path in found if path.is_file()}


def load(settings: ModelSettings, report: Report | None = None) -> LoadedModel:
    """Find, load and freeze a model.

    Args:
        settings: The ``[model]`` table.
        report: Told done and total bytes while a built-in model is fetched.

    Raises:
        ModelError: If it cannot be found or loaded, or wants code to be run.
        MachineError: If mlx has no backend here.
    """
    loaded = _lazy(settings, report)
    mx.eval(loaded.model.parameters())
    return loaded


def outline(settings: ModelSettings, report: Report | None = None) -> LoadedModel:
    """A model with every shape and type but no weights; arguments and errors as ``load``.

    Nothing is read of its weight files but their headers, and no memory is taken.
    """
    loaded = _lazy(settings, report)
    loaded.model.update(tree_map(_stand_in, loaded.model.parameters()))
    return loaded


def _stand_in(weight: mx.array) -> mx.array:
    return mx.broadcast_to(mx.array(1, weight.dtype), weight.shape)


def _lazy(settings: ModelSettings, report: Report | None) -> LoadedModel:
    """The model as it is to be, its weights not read yet."""
    machine.require_backend()
    folder = source.as_folder(settings.source, report)
    config = sound.read_config(folder)
    sound.check_trust(folder, config, settings)
    sound.check_sizes(folder, config)
    corrections = rope.corrections(config)
    encoder = _tokenizer(folder, settings)
    model = _weights(folder, corrections, settings)
    precision, said = _settle(model, settings, rounded=_is_rounded(settings, config))
    model.freeze()
    model.eval()
    notes = [_corrected(config, corrections)] if corrections else []
    if window := window_left_out(config):
        notes.append(without_window(window))
    return LoadedModel(
        model, encoder, folder, settings.source, precision, (*notes, *said)
    )


def _corrected(config: Mapping[str, Any], corrections: Mapping[str, Any]) -> str:
    return (
        f"config.json names {rope.spelled(corrections, config)} in rope_parameters "
        "only; it was put where mlx-lm reads it."
    )


def without_window(window: int) -> str:
    """What is to be known of a model whose sliding window is left out."""
    return (
        "mlx-lm runs this model without its sliding window, so texts of more than "
        f"{window} tokens are attended otherwise than it was made for; keep rows and "
        "prompts shorter."
    )


def context_length(folder: Path) -> int | None:
    """The longest text, in tokens, that a model says it was made for."""
    config = sound.read_config(folder)
    inner = config.get("text_config")
    for table in (config, inner if isinstance(inner, dict) else {}):
        length = table.get("max_position_embeddings")
        if isinstance(length, int) and length > 0:
            return min(length, window_left_out(config) or length)
    return None


def room(context: int | None, length: int, wanted: int) -> int:
    """Tokens that an answer may have behind ``length`` others; ModelError if none."""
    if context is not None and length >= context:
        raise ModelError(
            f"The text is {length} tokens long; the model reads and writes at most "
            f"{context}."
        )
    return wanted if context is None else min(wanted, context - length)


def window_left_out(config: Mapping[str, Any]) -> int | None:
    """The sliding window of a model that mlx-lm runs without one, in tokens.

    None where it has one, or where the model takes no longer texts anyway.
    """
    if config.get("model_type") not in WITHOUT_WINDOW:
        return None
    window, most = config.get("sliding_window"), config.get("max_position_embeddings")
    if isinstance(window, int) and isinstance(most, int) and window < most:
        return window
    return None


def end_tokens(folder: Path) -> list[int]:
    """The tokens that the model's configuration, not its tokenizer, ends a turn with."""
    from mlx_lm.utils import load_config

    named = load_config(folder).get("eos_token_id")
    return [named] if isinstance(named, int) else list(named or ())


def tokenizer(settings: ModelSettings, report: Report | None = None) -> Any:
    """A model's tokenizer alone, without its weights; arguments and errors as ``load``."""
    machine.require_backend()
    return _tokenizer(source.as_folder(settings.source, report), settings)


def _is_rounded(settings: ModelSettings, config: Mapping[str, Any]) -> bool:
    """Whether the weights were likely rounded before they came here."""
    return settings.source.endswith(".gguf") or "quantization_config" in config


def _tokenizer(folder: Path, settings: ModelSettings) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from mlx_lm.utils import load_config, load_tokenizer

    if not any(folder.glob("tokenizer*")):
        raise ModelError(
            "The model folder has no tokenizer (tokenizer.json or tokenizer.model).",
            where=str(folder),
            hint="Copy the tokenizer files of the base model into it.",
        )
    options = {"trust_remote_code": settings.trust_remote_code}
    try:
        ends = load_config(folder).get("eos_token_id")
        return load_tokenizer(folder, options, eos_token_ids=ends)
    except (*sound.UNFIT, ImportError, StrictDataclassError) as problem:
        raise ModelError(
            f"The tokenizer cannot be loaded: {problem}", where=str(folder)
        ) from problem


def _weights(
    folder: Path, corrections: Mapping[str, Any], settings: ModelSettings
) -> nn.Module:
    from mlx_lm.utils import load_model

    sound.check_files(folder)
    try:
        model, _ = load_model(
            folder,
            lazy=True,
            model_config=dict(corrections),
            trust_remote_code=settings.trust_remote_code,
        )
    except sound.UNFIT as problem:
        raise ModelError(
            f"The weights cannot be loaded: {problem}", where=str(folder)
        ) from problem
    sound.check_kinds(folder, model)
    return model


def _settle(
    model: nn.Module, settings: ModelSettings, *, rounded: bool
) -> tuple[str, list[str]]:
    """Bring the weights to the wanted type; returns it, and what is to be known.

    On the CPU backend only float32 goes through BLAS; other types and quantised weights
    are multiplied far more slowly, so ``auto`` is float32 there, and so are the scales
    of weights that are to stay quantised.
    """
    on_cpu = machine.backend() == "cpu"
    wanted = settings.precision
    if wanted == "auto":
        wanted = "float32" if on_cpu else "stored"
    keep = settings.quantize != "none"
    if wanted != "stored":
        if not keep:
            from mlx_lm.utils import dequantize_model

            dequantize_model(model)
        model.set_dtype(getattr(mx, wanted))
    return wanted, _quantised(model, settings, rounded=rounded) if keep else []


def _quantised(
    model: nn.Module, settings: ModelSettings, *, rounded: bool
) -> list[str]:
    notes: list[str] = []
    if held := quantize.layers(model):
        notes.append(
            f"The model is quantised already ({'; '.join(held)}) and stays so; "
            "--quantize rounds nothing a second time."
        )
    else:
        notes += quantize.quantize(model, settings.quantize)
        if rounded:
            notes.append(
                "The model's file holds rounded weights; rounding them a second time "
                "loses more than once."
            )
    if machine.backend() == "cpu":
        notes.append(
            "The CPU backend multiplies by quantised weights many times more slowly "
            "than in float32; --quantize saves memory here, not time."
        )
    return notes
