"""``mlx-rsft chat``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import Interrupted, RsftError

if TYPE_CHECKING:
    from mlx_rsft.workflows.chat import Chat


@click.command(
    "chat", epilog="Example: mlx-rsft chat --model demo --adapter runs/first/adapter"
)
@options.setting_flags(
    "model.source",
    "data.template",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
    "seed",
)
@options.adapter
@click.option(
    "--system", default="", metavar="TEXT", help="Told to the model before all else."
)
@options.answering(max_tokens=512)
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    adapter: Path | None,
    **manner: Any,
) -> None:
    """Talk to a model, turn by turn.

    /adapter off and /adapter on let you feel what the adapter does, /weight 0.5 sets
    its strength, /reset forgets the conversation, /help lists all. Ctrl-C stops an
    answer; Ctrl-C again, or Ctrl-D, leaves. Where stdin is no terminal each of its
    lines is a turn, and the first Ctrl-C leaves. Answers go to stdout, all else to
    stderr.
    """
    from mlx_rsft.workflows.chat import Manner, chat

    settings = options.resolved(config_file, assignments)
    talk = chat(settings, adapter, Manner(**manner), console.TerminalReporter())
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        _tell("/help lists what you can do; Ctrl-D leaves")
    try:
        stopped = _converse(talk, is_terminal=is_terminal)
    except KeyboardInterrupt:
        stopped = True
    if stopped:
        _tell("")
        raise click.exceptions.Exit(Interrupted.exit_code)


def _converse(talk: Chat, *, is_terminal: bool) -> bool:
    """Turn by turn to the end; whether it was stopped before that."""
    for line in _lines(is_terminal=is_terminal):
        finished = _turn(talk, line.strip())
        if not finished and not is_terminal:
            return True  # nobody is there to type another turn
        if talk.over:
            break
    return False


def _lines(*, is_terminal: bool) -> Iterator[str]:
    if not is_terminal:
        yield from sys.stdin
        return
    importlib.import_module("readline")  # lets input() edit and recall lines
    while True:
        try:
            yield input("> ")
        except EOFError:
            _tell("")
            return


def _turn(talk: Chat, line: str) -> bool:
    """One line of the user's; whether it came to its end."""
    try:
        if line.startswith("/"):
            _tell(talk.command(line))
        elif line:
            for piece in talk.say(line):
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n")
            sys.stdout.flush()
    except RsftError as problem:
        _tell(str(problem))
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        _tell("stopped")
        return False
    return True


def _tell(text: str) -> None:
    """Say something that is no answer."""
    click.echo(text, err=True)
