"""The adapter that is to be exported or checked, on its model, and rows to try it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data import source
from mlx_rsft.data.conversation import Example
from mlx_rsft.errors import DataError, ModelError
from mlx_rsft.export import live
from mlx_rsft.export.live import Live
from mlx_rsft.models import adapters, stored
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter

OF_RUNS = ("model.", "data.")
"""Settings of a run that say what its adapter was trained on."""


def folder_of(adapter: Path) -> Path:
    """The adapter's folder: a run's, or the one that is named.

    Raises:
        ModelError: If there is none.
    """
    for folder in (adapter, RunDir(adapter).adapter):
        if (folder / stored.CONFIG).is_file():
            return folder
    raise ModelError(
        "There is no adapter.",
        where=str(adapter),
        hint="Pass a run directory, or a folder with adapter_config.json.",
    )


def completed(resolved: Resolved, adapter: Path) -> Resolved:
    """The settings, with what the adapter's files tell where nobody said otherwise."""
    known = _recorded(folder_of(adapter))
    given = {key: value for key, value in known.items() if not resolved.is_given(key)}
    return configuration.changed(resolved, given, str(adapter))


def _recorded(folder: Path) -> Mapping[str, object]:
    """Which model and data an adapter belongs to, as far as its files tell."""
    run = RunDir(folder.resolve().parent)
    if run.config.is_file() and run.adapter == folder.resolve():
        held = configuration.from_file(run.config).values
        return {k: v for k, v in held.items() if k.startswith(OF_RUNS)}
    text = stored.config(folder)
    model = text.get("base_model_name_or_path" if stored.is_peft(text) else "model")
    return {"model.source": model} if isinstance(model, str) and model else {}


def opened(
    resolved: Resolved, adapter: Path, reporter: Reporter, base_name: str = ""
) -> Live:
    """The model with the adapter on it; the settings are ``completed`` ones.

    Raises:
        RsftError: If there is no such adapter, or no such model.
    """
    configuration.require(resolved.config, "model.source")
    folder = folder_of(adapter)
    loaded = assemble.model(resolved.config, reporter, folder)
    config = adapters.load(loaded.model, folder)
    return Live(loaded, config, live.base_name(loaded.source, base_name))


def rows(resolved: Resolved, subject: Live, reporter: Reporter) -> Sequence[Example]:
    """Rows of the user: the valid split, else a test split, else what there is.

    Rows that a run names and that cannot be read any more are left out, and that is said.

    Raises:
        DataError: If rows that were named for this cannot be read.
    """
    config = resolved.config
    if not config.data.source:
        return ()
    named = resolved.origins.get("data.source") == configuration.FLAG
    try:
        found = source.find_splits(Path(config.data.source).expanduser())
        tests = [name for name in found if name not in (source.TRAIN, source.VALID)]
        name = next(n for n in (source.VALID, *tests, *found) if n in found)
        paths = {name: found[name]}
        return assemble.splits(paths, config, subject.loaded, reporter).rows[name]
    except DataError as problem:
        if named:
            raise
        reporter.note(f"compared on bundled prompts alone: {problem}")
        return ()
