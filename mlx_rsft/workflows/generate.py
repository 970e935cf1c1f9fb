"""Let a model answer one prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data import templates
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import generate as generation
from mlx_rsft.models import load
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter


def generate(
    resolved: Resolved,
    adapter: Path | None,
    prompt: str,
    reporter: Reporter,
    *,
    temperature: float = 0.0,
    thinking: bool = False,
) -> Iterator[str]:
    """The answer to a prompt, in pieces as they come.

    The prompt is one user turn where the model has a chat template, plain text to be
    continued where it has none. ``thinking`` is the position of the template's switch;
    off is what replies without reasoning are trained behind.

    Raises:
        RsftError: Whatever is wrong with settings, model or adapter.
    """
    config = resolved.config
    configuration.require(config, "model.source")
    if not prompt.strip():
        raise ConfigError("The prompt is empty.", where="--prompt")
    loaded = assemble.model(config, reporter, adapter)
    model = assemble.adapted(loaded, adapter).model
    tokenizer = loaded.tokenizer
    if tokenizer.has_chat_template:
        tokens = templates.prompt(tokenizer, prompt, thinking=thinking)
        if not thinking and templates.Template(tokenizer).switches:
            reporter.note("the model is told not to think; --thinking lets it")
    elif thinking:
        raise ConfigError("The model has no chat template.", where="--thinking")
    else:
        tokens = tokenizer.encode(prompt)
    return generation.stream(
        model,
        tokenizer,
        tokens,
        max_tokens=load.room(
            load.context_length(loaded.path), len(tokens), config.evaluation.max_tokens
        ),
        temperature=temperature,
        seed=config.seed,
    )
