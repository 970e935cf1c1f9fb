"""Write an adapter for other programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.errors import ConfigError, ModelError, RsftError, nearest, raise_together
from mlx_rsft.export import EXPORTERS, live
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.models import adapters, stored
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter

RECORD = "export.json"
OF_RUNS = ("model.", "data.")
"""Settings of a run that say what its adapter was trained on."""


def export(
    resolved: Resolved,
    adapter: Path,
    targets: Sequence[str],
    out: Path,
    reporter: Reporter,
    *,
    choices: Choices,
    base_name: str = "",
) -> list[dict[str, Any]]:
    """Write every target into a folder of its own name in ``out``.

    Args:
        resolved: The settings; what a run recorded of itself fills what is not given.
        adapter: A run, or an adapter's folder.
        targets: Keys of ``EXPORTERS``.
        out: A new folder.
        reporter: Told of progress.
        choices: What is chosen about the files.
        base_name: What the files call the base model; empty: its own name.

    Returns:
        What ``export.json`` holds: a record per target.

    Raises:
        RsftError: Whatever is wrong with what is given; nothing is left behind.
    """
    check_targets(targets)
    check_free(out)
    subject = opened(resolved, adapter, reporter, base_name)
    with files.new_folder(out) as scratch:
        made = [_written(name, subject, scratch, choices, reporter) for name in targets]
        entries = [_entry(product, scratch) for product in made]
        text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False)
        files.write_text(scratch / RECORD, text + "\n")
    return entries


def check_targets(targets: Sequence[str]) -> None:
    """Raise ConfigError for no target, and for each that is not known."""
    if not targets:
        raise ConfigError(
            "No target is given.",
            where="--to",
            hint=f"Known: {', '.join(EXPORTERS)}; several may be named.",
        )
    raise_together(
        [
            ConfigError(
                f"There is no target {name!r}.",
                where="--to",
                hint=nearest(name, EXPORTERS),
            )
            for name in targets
            if name not in EXPORTERS
        ]
    )


def check_free(out: Path) -> None:
    """Raise ConfigError unless ``out`` is a folder to be made."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "There is something already.",
            where=str(out),
            hint="Pass another --out; nothing is overwritten.",
        )


def opened(
    resolved: Resolved, adapter: Path, reporter: Reporter, base_name: str = ""
) -> Live:
    """The model with the adapter on it, as the settings and the adapter's files say.

    Raises:
        RsftError: If there is no such adapter, or no such model.
    """
    folder = _folder(adapter)
    known = _recorded(folder)
    given = {key: value for key, value in known.items() if not resolved.is_given(key)}
    resolved = configuration.changed(resolved, given, str(adapter))
    configuration.require(resolved.config, "model.source")
    loaded = assemble.model(resolved.config, reporter)
    config = adapters.load(loaded.model, folder)
    return Live(loaded, config, live.base_name(loaded.source, base_name))


def _folder(adapter: Path) -> Path:
    for folder in (adapter, RunDir(adapter).adapter):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise ModelError(
        "There is no adapter.",
        where=str(adapter),
        hint="Pass a run directory, or a folder with adapter_config.json.",
    )


def _recorded(folder: Path) -> Mapping[str, object]:
    """Which model and data an adapter belongs to, as far as its files tell."""
    run = RunDir(folder.parent)
    if run.config.is_file() and run.adapter == folder:
        held = configuration.from_file(run.config).values
        return {k: v for k, v in held.items() if k.startswith(OF_RUNS)}
    text = stored.config(folder)
    model = text.get("base_model_name_or_path" if stored.is_peft(text) else "model")
    return {"model.source": model} if isinstance(model, str) else {}


def _written(
    target: str, subject: Live, out: Path, choices: Choices, reporter: Reporter
) -> Product:
    folder = out / target
    folder.mkdir()
    with reporter.task(f"write {target}", 0):
        try:
            return EXPORTERS[target].write(subject, folder, choices)
        except RsftError as problem:
            reporter.note(f"{target} cannot be written; nothing is left behind.")
            raise problem from None


def _entry(product: Product, out: Path) -> dict[str, Any]:
    return {
        "target": product.target,
        "path": str(product.path.relative_to(out)),
        "reader": None,
        "verified": None,
        "max_difference": None,
        "tolerance": None,
        "unit": "nats",
        "greedy_agreement": None,
        "notes": list(product.notes),
    }
