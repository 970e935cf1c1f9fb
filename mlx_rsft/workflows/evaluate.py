"""Score a model, with or without an adapter, on one or more splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import evaluation
from mlx_rsft.config import Resolved
from mlx_rsft.evaluation import Measured
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter


def evaluate(
    resolved: Resolved, adapter: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Measure every chosen metric on every chosen split.

    Returns:
        ``{"model", "adapter", "splits": {NAME: {"rows", "tokens", "metrics"}}}``.

    Raises:
        RsftError: Whatever is wrong with settings, data, model or adapter.
    """
    config = resolved.config
    configuration.require(config, "model.source", "data.source")
    metrics = evaluation.choose(config.evaluation.metrics)
    paths = assemble.evaluation_paths(config)
    loaded = assemble.model(config, reporter)
    splits = assemble.splits(paths, config, loaded, reporter)
    split = assemble.adapted(loaded, adapter)
    measured: dict[str, Measured] = {}
    for name, rows in splits.rows.items():
        with reporter.task(f"evaluate {name}", len(rows)) as advance:
            measured[name] = evaluation.measure(
                split,
                loaded.tokenizer,
                rows,
                metrics,
                config.evaluation.max_tokens,
                advance,
            )
    return {
        "model": config.model.source,
        "adapter": str(adapter) if adapter else None,
        "splits": {name: record.as_record() for name, record in measured.items()},
    }
