"""``mlx-rsft export``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options
from mlx_rsft.errors import ConfigError


@click.command(
    "export",
    epilog="Example: mlx-rsft export runs/first --to peft,gguf --out exported",
)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--to",
    "targets",
    multiple=True,
    metavar="TARGET,...",
    help="What to write; several with commas, or again.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="New folder, with one in it per target.  (required)",
)
@click.option(
    "--base-name",
    default="",
    metavar="NAME",
    help="What the files call the base model, such as its Hub id.",
)
@click.option(
    "--gguf-type",
    metavar="TYPE",
    help="Type in GGUF files: f32 (default of an adapter), f16 (of a whole model), bf16, "
    "q8_0; of a whole model also q4_0, and q4_k_m and its kin by llama-quantize.",
)
@click.option(
    "--requantize",
    is_flag=True,
    help="Quantise a whole MLX model as its base is; exit 3 if that loses the adapter.",
)
@click.option(
    "--dora-as-lora",
    type=click.IntRange(min=1),
    metavar="RANK",
    help="Let a GGUF adapter hold the nearest LoRA of this rank; says how near it is.",
)
@click.option(
    "--push",
    default="",
    metavar="OWNER/NAME",
    help="Then upload it to the Hub, into a private repository.",
)
@click.option("--public", is_flag=True, help="Make the repository of --push public.")
@click.option("--no-verify", is_flag=True, help="Do not read back what is written.")
@click.option(
    "--check",
    "stacks",
    multiple=True,
    metavar="STACK,...",
    help="Write nothing; say whether mlx-lm, lmstudio, ollama, llama.cpp, vllm, sglang, "
    "tgi or transformers (or all) will take the adapter, and if not what to do.",
)
@options.setting_flags(
    "model.source",
    "data.source",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    source: Path,
    targets: tuple[str, ...],
    out: Path | None,
    **chosen: Any,
) -> None:
    """Write an adapter for other programs, and let them read it back.

    SOURCE is a run directory, or any folder with an adapter of mlx-lm or PEFT; --model
    names the base model where its files do not. Each product is loaded again as its
    users load it and compared with the live adapter, on bundled prompts and on rows of
    yours (--data, or those of the run); exit code 3 if one differs. A target that cannot
    be made is named, and the others are kept. No written file names a path of this
    machine or holds a row of yours.
    """
    from mlx_rsft.export.product import Choices
    from mlx_rsft.workflows import export, publish

    settings = options.resolved(config_file, assignments)
    reporter = console.TerminalReporter()
    if stacks := _split(chosen["stacks"]):
        answers = export.check(settings, source, stacks, reporter)
        _show_answers([each.as_record() for each in answers], chosen["as_json"])
        return
    if out is None:
        raise ConfigError("No folder is given.", where="--out", hint="Pass --out DIR.")
    names, verified = _checked(targets, chosen), not chosen["no_verify"]
    entries = export.export(
        settings,
        source,
        names,
        out,
        Choices(
            chosen["gguf_type"] or "f32",
            chosen["dora_as_lora"] or 0,
            chosen["base_name"],
            chosen["gguf_type"] or "f16",
            requantize=chosen["requantize"],
        ),
        reporter,
        verified=verified,
    )
    if chosen["as_json"]:
        console.emit_json(entries)
        if code := export.ends_with(entries):
            raise click.exceptions.Exit(code)
    else:
        _show(entries, out)
        export.raise_unless_verified(entries, out)
    if chosen["push"]:
        address = publish.push(
            chosen["push"],
            publish.folder_of(out, entries),
            entries,
            reporter,
            public=chosen["public"],
        )
        reporter.note(f"uploaded: {address}")


def _checked(targets: Sequence[str], chosen: Mapping[str, Any]) -> list[str]:
    """The names of the targets, if they go with each other and with the flags."""
    from mlx_rsft.workflows import export, publish

    names = _split(targets)
    export.check_targets(names)
    flags = ("gguf_type", "requantize", "dora_as_lora")
    given = {f"--{flag.replace('_', '-')}": bool(chosen[flag]) for flag in flags}
    export.check_flags(names, given)
    publish.check(chosen["push"], names, verified=not chosen["no_verify"])
    return names


def _split(targets: Sequence[str]) -> list[str]:
    """The names in ``a,b`` and ``a`` ``b``, each once."""
    names = [name.strip() for text in targets for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name))


def _show(entries: Sequence[dict[str, Any]], out: Path) -> None:
    columns = ["target", "path", "reader", "verified", "judged by", "apart"]
    columns += ["allowed", "lost", "greedy"]
    rows = [
        [
            entry["target"],
            str(out / entry["path"]) if entry["path"] else "",
            entry["reader"] or "",
            _held(entry),
            entry["judged"] or "",
            _number(entry["judged"] and entry[entry["judged"]], ".2g"),
            _number(entry["tolerance"], ".2g"),
            _number(entry["lost"], ".1%"),
            _number(entry["greedy_agreement"], ".0%"),
        ]
        for entry in entries
    ]
    console.table(columns, rows, left=True)
    notes = {
        (entry["target"], note): None for entry in entries for note in entry["notes"]
    }
    for target, note in notes:
        console.emit(f"{target}: {note}")


def _held(entry: Mapping[str, Any]) -> str:
    if entry["path"] is None:
        return "refused"
    return {True: "yes", False: "NO", None: entry["note"]}[entry["verified"]]


def _show_answers(answers: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        console.emit_json(answers)
        return
    rows = [
        [
            each["stack"],
            "yes" if each["accepted"] else "no",
            each["target"],
            each["reason"],
            each["advice"],
        ]
        for each in answers
    ]
    console.table(["stack", "takes it", "as", "because", "what to do"], rows, left=True)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
