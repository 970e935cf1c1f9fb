"""``mlx-rsft generate``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "generate",
    epilog="Example: mlx-rsft generate --model demo --prompt 'What is a lathe?'",
)
@options.setting_flags(
    "model.source",
    "data.template",
    "evaluation.max_tokens",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
    "seed",
)
@options.adapter
@click.option("--prompt", metavar="TEXT", help='The question; "-" reads stdin.')
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    help="0 takes the likeliest token each time.  [default: 0]",
)
@click.option(
    "--thinking",
    is_flag=True,
    help="Let the model think first, where its chat template has a switch for it.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    adapter: Path | None,
    prompt: str | None,
    temperature: float,
    *,
    thinking: bool,
    as_json: bool,
) -> None:
    """Let a model answer one prompt.

    The prompt is one user turn, in the model's own chat template or that of --template;
    name the one it was trained with. Thinking is off by default, because replies
    without reasoning are trained with it off; pass --thinking if your replies had
    reasoning.
    """
    from mlx_rsft.workflows.generate import generate

    settings = options.resolved(config_file, assignments)
    if prompt is None:
        raise ConfigError("No prompt is given.", hint='Pass --prompt "...".')
    question = sys.stdin.read() if prompt == "-" else prompt
    reporter = console.TerminalReporter()
    pieces = generate(
        settings,
        adapter,
        question,
        reporter,
        temperature=temperature,
        thinking=thinking,
    )
    if as_json:
        model = settings.config.model.source
        answer = {"model": model, "adapter": str(adapter) if adapter else None}
        console.emit_json({**answer, "prompt": question, "text": "".join(pieces)})
        return
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
