"""``mlx-rsft generate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.config import Resolved
from mlx_rsft.errors import ConfigError


@click.command(
    "generate",
    epilog="Example: mlx-rsft generate --model demo --prompt 'What is a lathe?'   "
    "Or: mlx-rsft generate --model demo --in prompts.jsonl --out answers.jsonl",
)
@options.setting_flags(
    "model.source",
    *(name for name in options.READING if name != "data.train_on"),
    "evaluation.max_tokens",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
    "seed",
)
@options.adapter
@click.option("--prompt", metavar="TEXT", help='The question; "-" reads stdin.')
@click.option(
    "--in",
    "asked",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Questions, as rows of any kind that data takes, answered or not.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE.jsonl",
    help="Where the answers to --in go; stopped, the same command goes on.",
)
@options.temperature
@options.thinking
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    adapter: Path | None,
    *,
    as_json: bool,
    **asked: Any,
) -> None:
    """Let a model answer one prompt, or a file of them.

    The prompt is one user turn, in the model's own chat template or that of --template;
    name the one it was trained with. Of a row with --in all turns before its last reply
    are asked; answers keep the row's id and tags. Thinking is off by default, because
    replies without reasoning are trained with it off; pass --thinking if your replies
    had reasoning.
    """
    settings = options.resolved(config_file, assignments)
    question, file, out = (asked.pop(name) for name in ("prompt", "asked", "out"))
    if (file is None) != (out is None):
        raise ConfigError("--in and --out go together.", hint="Pass both, or neither.")
    if (question is None) == (file is None):
        raise ConfigError(
            "No prompt is given." if file is None else "--prompt and --in are given.",
            hint='Pass --prompt "..." or --in FILE --out FILE.jsonl.',
        )
    if file is None:
        _one(settings, adapter, question, as_json=as_json, **asked)
    else:
        _many(settings, adapter, file, out, as_json=as_json, **asked)


def _one(
    settings: Resolved,
    adapter: Path | None,
    prompt: str,
    *,
    as_json: bool,
    **manner: Any,
) -> None:
    from mlx_rsft.workflows.generate import generate

    question = sys.stdin.read() if prompt == "-" else prompt
    reporter = console.TerminalReporter()
    pieces = generate(settings, adapter, question, reporter, **manner)
    if as_json:
        model = settings.config.model.source
        answer = {"model": model, "adapter": str(adapter) if adapter else None}
        console.emit_json({**answer, "prompt": question, "text": "".join(pieces)})
        return
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _many(
    settings: Resolved,
    adapter: Path | None,
    asked: Path,
    out: Path,
    *,
    as_json: bool,
    **manner: Any,
) -> None:
    from mlx_rsft.workflows.answering import Job, answer_file

    job = Job(asked, out, **manner)
    record = answer_file(settings, adapter, job, console.TerminalReporter())
    if as_json:
        console.emit_json(record)
        return
    console.emit(f"{record['rows']} answers of {record['tokens']} tokens: {out}")
    if record["cut"]:
        most = settings.config.evaluation.max_tokens
        console.emit(f"{record['cut']} were cut at {most} tokens; see --max-tokens")
