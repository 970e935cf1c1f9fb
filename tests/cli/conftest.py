"""The command line, in this process or in one of its own."""

import contextlib
import io
import subprocess
import sys

import click
import pytest

from mlx_rsft.cli import options
from mlx_rsft.cli.main import group, main

OF_ONE_RUN = {
    *("--run-dir", "--resume", "--extend-to"),
    *map(options.flag_name, options.KEEPING),
}
"""Flags of train that are about one run alone."""


def words(*arguments):
    """What starts it in a process of its own."""
    return [sys.executable, "-m", "mlx_rsft", *map(str, arguments)]


def started(*arguments, **pipes):
    """A process that goes on by itself, for signals and terminals."""
    return subprocess.Popen(words(*arguments), **pipes)


def processed(*arguments):
    """What a process of its own says, for laws about processes: each costs seconds."""
    return subprocess.run(
        words(*arguments), capture_output=True, text=True, timeout=120, check=False
    )


def run(*arguments, cwd=".", stdin=""):
    """What it says and ends with, inside this process."""
    given, said, told = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as held:
        held.enter_context(contextlib.chdir(cwd))
        held.enter_context(contextlib.redirect_stdout(said))
        held.enter_context(contextlib.redirect_stderr(told))
        patch = held.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main(given)
    code = end.value.code
    return subprocess.CompletedProcess(given, code, said.getvalue(), told.getvalue())


def flags_of(*names):
    """The flags of each command."""
    context = click.Context(group)
    return [
        {
            flag
            for option in group.get_command(context, name).params
            for flag in option.opts
        }
        for name in names
    ]
