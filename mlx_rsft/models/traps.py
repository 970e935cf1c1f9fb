"""Known traps of a model folder, seen without loading it.

Everything is read from its JSON files and from the headers of its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft.checkup import Finding
from mlx_rsft.models import load, rope, sound

LFS = b"version https://git-lfs"
READ = (
    *("awq", "gptq", "bitnet", "mxfp4", "mxfp8", "fp8"),
    *("compressed-tensors", "modelopt"),
)
"""Ways of rounding in ``quantization_config`` that mlx-lm reads."""
MOST_HEADER = 100_000_000


def look(folder: Path) -> list[Finding]:
    """Every trap of a folder, and what is fine.

    Raises:
        ModelError: If it has no readable ``config.json``.
    """
    config = sound.read_config(folder)
    names, weights = _weights(folder)
    findings = [_class(config), weights, _position(folder, config)]
    if config.get("model_file"):
        findings.append(
            Finding(
                "problem",
                "code",
                f"It brings Python code of its own ({config['model_file']}), which is "
                "not run.",
                "If you trust its author, pass --trust-remote-code.",
            )
        )
    if not any(folder.glob("tokenizer*")):
        findings.append(
            Finding(
                "problem",
                "tokenizer",
                "There is none (tokenizer.json or tokenizer.model).",
                "Copy the tokenizer files of the base model into the folder.",
            )
        )
    findings.append(_rounding(config, names))
    if window := load.window_left_out(config):
        said, advice = load.without_window(window), f"--max-length {window}"
        findings.append(Finding("note", "window", said, advice))
    if names and not any("lm_head" in name for name in names):
        findings.append(_tied())
    return findings


def _class(config: Mapping[str, Any]) -> Finding:
    kind = str(config.get("model_type", ""))
    if config.get("model_file") or rope.module(kind):
        return Finding("fine", "architecture", kind)
    return Finding(
        "problem",
        "architecture",
        f"mlx-lm has no model of the type {kind!r}.",
        "pip install --upgrade mlx-lm, or take another model.",
    )


def _weights(folder: Path) -> tuple[set[str], Finding]:
    """The names of all tensors, and whether every file of theirs is whole."""
    names: set[str] = set()
    broken: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        found = _tensors(path)
        names.update(found or ())
        broken += [] if found is not None else [path.name]
    missing = [name for name in _listed(folder) if not (folder / name).exists()]
    if broken or missing or not names:
        told = [f"{name} is not whole" for name in broken]
        told += [f"{name} is missing" for name in missing]
        return names, Finding(
            "problem",
            "weights",
            f"{'; '.join(told) or 'There are no safetensors files'}.",
            "Fetch them again: hf download OWNER/NAME (in a git clone: git lfs pull).",
        )
    return names, Finding("fine", "weights", f"{len(names)} tensors, files whole")


def _tensors(path: Path) -> Sequence[str] | None:
    """The names in a file's header, or None if the file is not what that says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if LFS.startswith(start) or length > min(size, MOST_HEADER):
            return None
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            tensors = {k: v for k, v in header.items() if k != "__metadata__"}
            last = max((v["data_offsets"][1] for v in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
    return list(tensors) if 8 + length + last <= size else None


def _listed(folder: Path) -> Sequence[str]:
    """The files that an index of the weights names."""
    path = folder / "model.safetensors.index.json"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return sorted(set(listed.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def _position(folder: Path, config: Mapping[str, Any]) -> Finding:
    corrected = rope.corrections(config)
    if not corrected:
        return Finding("fine", "RoPE", "its settings stand where mlx-lm reads them")
    file = str(folder / "config.json")
    return Finding(
        "note",
        "RoPE",
        f"{rope.spelled(corrected, config)} stand in rope_parameters only. mlx-rsft "
        "puts them right in memory; mlx_lm itself loads this model with its class's "
        "defaults, without a word.",
        f'For other programs: python3 -c "import json, pathlib; p = pathlib.Path({file!r})'
        f"; c = json.loads(p.read_text()); c.update({corrected!r}); "
        'p.write_text(json.dumps(c, indent=2))"',
    )


def _rounding(config: Mapping[str, Any], names: set[str]) -> Finding:
    method = _table(config, "quantization_config").get("quant_method")
    if method is not None and method not in READ:
        return Finding(
            "problem",
            "quantisation",
            f"Its weights are rounded by {method}, which mlx-lm does not read.",
            "Take the model without it, and pass --quantize 4 if memory is short.",
        )
    rounded = any(name.endswith(".scales") for name in names) or method is not None
    if not rounded:
        return Finding("fine", "quantisation", "the weights are in full")
    kind = _table(config, "quantization")
    told = f"{kind['bits']} bits, group {kind.get('group_size')}" if kind else method
    return Finding(
        "note",
        "quantisation",
        f"The weights are rounded already ({told}). --quantize rounds them no second "
        "time; merging an adapter into them would, and can erase it.",
        "Keep the adapter beside the model, or merge into the model in full.",
    )


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _tied() -> Finding:
    return Finding(
        "note",
        "head",
        "Embeddings and head are one matrix. An adapter on the embeddings changes the "
        "head too, which other programs may not do; there is no lm_head to name in "
        "--keys; rounding it costs more than rounding blocks.",
        "Leave the embeddings out of --keys; --quantize leaves them in full.",
    )
