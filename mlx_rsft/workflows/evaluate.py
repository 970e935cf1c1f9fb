"""Score a model, with or without an adapter, on one or more splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import evaluation
from mlx_rsft.config import Resolved
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import Gauge, Measured, general
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter


def evaluate(
    resolved: Resolved, adapter: Path | None, reporter: Reporter
) -> dict[str, Any]:
    """Measure every chosen metric on every chosen split.

    Returns:
        ``{"model", "adapter", "splits": {NAME: {"rows", "tokens", "metrics"}}}``;
        a split whose rows have tags also has the same by tag, as ``tags``.

    Raises:
        RsftError: Whatever is wrong with settings, data, model or adapter.
    """
    config = resolved.config
    configuration.require(config, "model.source", "data.source")
    metrics = _metrics(resolved)
    paths = assemble.evaluation_paths(config)
    if config.evaluation.general and general.NAME in paths:
        raise ConfigError(
            "A split is called general already.",
            where="evaluation.general",
            hint="Name the splits with --splits, or rename its file.",
        )
    loaded = assemble.model(config, reporter, adapter)
    rows = dict(assemble.splits(paths, config, loaded, reporter).rows)
    if config.evaluation.general:
        rows[general.NAME] = general.examples(loaded.tokenizer)
    split = assemble.adapted(loaded, adapter)
    measured: dict[str, Measured] = {}
    for name, examples in rows.items():
        with reporter.task(f"evaluate {name}", len(examples)) as advance:
            measured[name] = evaluation.measure(
                split,
                loaded.tokenizer,
                examples,
                general.fitting(metrics) if name == general.NAME else metrics,
                config.evaluation.max_tokens,
                advance,
            )
    return {
        "model": config.model.source,
        "adapter": str(adapter) if adapter else None,
        "splits": {name: found.as_record() for name, found in measured.items()},
    }


def _metrics(resolved: Resolved) -> dict[str, Gauge]:
    metrics = assemble.metrics(resolved.config)
    if not any(gauge.sampling for gauge in metrics.values()):
        for key in ("evaluation.samples", "evaluation.temperature"):
            if resolved.is_given(key):
                raise ConfigError(
                    "No chosen metric looks at samples.",
                    where=key,
                    hint="Name one, such as --metrics avg_at_n,pass_at_k:k=4.",
                )
    return metrics
