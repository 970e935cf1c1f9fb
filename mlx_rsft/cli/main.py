"""``mlx-rsft``: finds the command, loads only that one, and turns errors into words."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from mlx_rsft import __version__, machine
from mlx_rsft.cli import console
from mlx_rsft.errors import ConfigError, Interrupted, RsftError, nearest

COMMANDS: dict[str, str] = {
    "pilot": "The guided whole: does it pay on your data, and what to do.",
    "train": "Fine-tune a model on your rows.",
    "probe": "Look at your rows before training: what to use, what is wrong.",
    "plan": "Say whether a run fits, and what to change.",
    "compare": "Hold objectives against each other, from the same seeds.",
    "search": "Find objective and learning rate, and write them as a profile.",
    "eval": "Score a model, with or without an adapter.",
    "report": "Write the page of a comparison.",
    "metrics": "List what eval can measure.",
    "ratings": "Read blind sheets that people have filled in.",
    "export": "Write an adapter for other programs.",
    "watch": "Ask frozen rows of every new adapter; alarm when it got worse.",
    "audit": "Look into a run, long after: story, soundness, repetition.",
    "generate": "Let a model answer one prompt, or a file of them.",
    "chat": "Talk to a model, with its adapter on, off or in between.",
    "serve": "Serve a model to programs that speak OpenAI's protocol.",
    "doctor": "Say what is wrong with this machine or a model, and what to do.",
    "objectives": "List the objectives, or plot one.",
    "data": "Work with data files.",
}
RANKED = ("train",)
"""Commands whose work several processes share."""
ISSUES_HINT = "This is a bug of mlx-rsft. Please report it with the lines above."


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"mlx_rsft.cli.{cmd_name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
    epilog="Start with: mlx-rsft pilot",
)
@click.version_option(__version__, prog_name="mlx-rsft")
@click.pass_context
def group(context: click.Context) -> None:
    """Reward-rectified supervised fine-tuning on MLX."""
    command = context.invoked_subcommand
    if command not in RANKED and machine.launched_by():
        raise ConfigError(
            f"mlx-rsft {command} runs in one process, and several were launched.",
            where=machine.launched_by(),
            hint="Leave mlx.launch out; of all commands, train alone shares its work.",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        code = group.main(given, prog_name="mlx-rsft", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except RsftError as problem:
        sys.exit(console.fail(problem, as_json=as_json))
    except click.ClickException as problem:
        sys.exit(console.fail(_usage(problem), as_json=as_json))
    except (KeyboardInterrupt, click.Abort):
        stopped = Interrupted("Stopped before anything was written.")
        sys.exit(console.fail(stopped, as_json=as_json))
    except BrokenPipeError:
        # The reader has left; python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as bug:  # noqa: BLE001 - the last one who can say that it is our bug
        if befallen := _befallen(bug):
            sys.exit(console.fail(befallen, as_json=as_json))
        sys.excepthook(type(bug), bug, bug.__traceback__)
        sys.stderr.write(ISSUES_HINT + "\n")
        sys.exit(1)


def _befallen(bug: Exception) -> RsftError | None:
    """What the machine did to a command that is no bug of ours: no memory, no disk."""
    if not isinstance(bug, MemoryError | RuntimeError | OSError):
        return None
    from mlx_rsft.workflows import mishaps

    return mishaps.of_machine(bug)


class _UsageError(RsftError):
    kind = "usage"


def _usage(problem: click.ClickException) -> RsftError:
    context: Any = getattr(problem, "ctx", None)
    command = context.command_path if context else "mlx-rsft"
    return _UsageError(
        problem.format_message(), hint=f"See {command} --help for what there is."
    )
