"""``mlx-rsft serve``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import Interrupted


@click.command(
    "serve",
    epilog="Example: mlx-rsft serve --model demo --adapter runs/first/adapter",
)
@options.setting_flags(
    "model.source",
    "data.template",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
)
@options.adapter
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Interface to listen on; the default is this machine alone.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="0 takes any free one and says which.",
)
@options.answering(max_tokens=512)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="URL",
    help="A web page that may ask, such as http://localhost:3000; may be repeated.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    adapter: Path | None,
    *,
    as_json: bool,
    **manner: Any,
) -> None:
    """Serve a model to programs that speak OpenAI's protocol.

    It answers with the model and adapter it was started with, whatever model name a
    client sends, and loads nothing else. /health says what is served, /v1/models names
    it, /v1/chat/completions and /v1/completions answer, streaming or not. A client's
    own max_tokens, temperature, top_p, stop and seed outrank those given here. Ctrl-C
    ends it.
    """
    from mlx_rsft.workflows.serve import Manner, serve

    settings = options.resolved(config_file, assignments)
    reporter = console.TerminalReporter()
    ready = serve(settings, adapter, Manner(**manner), reporter)
    record = ready.as_record()
    if as_json:
        console.emit_json(record)
    else:
        with_adapter = f"with adapter {adapter}" if adapter else "without adapter"
        console.emit(f"ready: {record['model']} {with_adapter} at {record['url']}")
    sys.stdout.flush()
    try:
        ready.run()
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads of open connections may be inside of C++ code; Python would unwind them
        # there as it ends, and that aborts the process.
        os._exit(Interrupted.exit_code)
