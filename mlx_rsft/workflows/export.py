"""Write an adapter for other programs, and let them read it back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.errors import (
    CheckFailed,
    ConfigError,
    MachineError,
    ModelError,
    RsftError,
    nearest,
    raise_together,
)
from mlx_rsft.export import EXPORTERS, verify
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.export.stacks import ALL, STACKS, Answer, answer
from mlx_rsft.export.verify import Questions, Verdict
from mlx_rsft.workflows import publish, subject
from mlx_rsft.workflows.reporter import Reporter

RECORD = "export.json"
UNASKED = Verdict(None, None, note="not verified: --no-verify")
HEEDED = {
    "--gguf-type": ("gguf", "gguf-merged", "ollama"),
    "--requantize": ("fused", "lmstudio"),
    "--dora-as-lora": ("gguf",),
}
"""Which targets heed a flag about the files."""

Entries = list[dict[str, Any]]


def export(
    resolved: Resolved,
    adapter: Path,
    targets: Sequence[str],
    out: Path,
    choices: Choices,
    reporter: Reporter,
    *,
    verified: bool = True,
) -> Entries:
    """Write every target into a folder of its own name in ``out``, and read it back.

    A target that cannot be made takes no other with it: its entry has no path, and says
    in ``refused`` why, as an error does.

    Args:
        resolved: The settings; what a run recorded of itself fills what is not given.
        adapter: A run, or an adapter's folder, mlx-lm's or PEFT's.
        targets: Keys of ``EXPORTERS``.
        out: A new folder.
        choices: What is chosen about the files.
        reporter: Told of progress.
        verified: Whether readers are asked.

    Returns:
        What ``export.json`` holds: an entry per target and reader.

    Raises:
        RsftError: Whatever is wrong with what is given, or with every target; nothing is
            left behind.
    """
    check_targets(targets)
    check_free(out)
    resolved = subject.completed(resolved, adapter)
    live = subject.opened(resolved, adapter, reporter, choices.base_name)
    with files.new_folder(out) as scratch:
        tried = {
            name: _tried(name, live, scratch, choices, reporter) for name in targets
        }
        refused = [each for each in tried.values() if isinstance(each, RsftError)]
        if len(refused) == len(tried):
            raise_together(refused)
        asked = None
        if verified:
            with reporter.task("ask the live model", 0):
                asked = verify.questions(live, subject.rows(resolved, live, reporter))
        told = publish.story(adapter)
        entries: Entries = []
        for name, product in tried.items():
            if isinstance(product, RsftError):
                entries.append(_refused(name, product))
                continue
            found = _entries(product, live, asked, scratch, reporter)
            publish.write_card(live, product, told, found)
            entries += found
        text = json.dumps(entries, indent=2, ensure_ascii=False, allow_nan=False)
        files.write_text(scratch / RECORD, text + "\n")
    return entries


def check(
    resolved: Resolved, adapter: Path, stacks: Sequence[str], reporter: Reporter
) -> list[Answer]:
    """Which programs take an adapter, in which form, and what to do where one does not.

    Args:
        resolved: The settings; what a run recorded of itself fills what is not given.
        adapter: A run, or an adapter's folder.
        stacks: Keys of ``STACKS``, or ``all``.
        reporter: Told of progress.

    Raises:
        RsftError: Whatever is wrong with what is given.
    """
    names = list(STACKS) if ALL in stacks else stacks
    raise_together(
        [
            ConfigError(
                f"{name!r} is not known.",
                where="--check",
                hint=nearest(name, [*STACKS, ALL]),
            )
            for name in names
            if name not in STACKS
        ]
    )
    live = subject.opened(subject.completed(resolved, adapter), adapter, reporter)
    return [answer(name, live) for name in names]


def raise_unless_verified(entries: Entries, out: Path) -> None:
    """Say what is no product to use: what readers find otherwise, and what was refused.

    Raises:
        CheckFailed: If a reader found something else than the live model, or a target
            was refused by a check; what was written is still there.
        ConfigError: If targets were refused for other reasons alone.
    """
    raise_together(_problems(entries, out))


def ends_with(entries: Entries) -> int:
    """The exit code of what ``raise_unless_verified`` raises; 0 where it does not."""
    return max((each.exit_code for each in _problems(entries, Path())), default=0)


def _problems(entries: Entries, out: Path) -> list[RsftError]:
    """What a check said no to comes first, for it decides the exit code."""
    found = [_differs(entry, out) for entry in entries if entry["verified"] is False]
    found += [_not_made(entry) for entry in entries if entry["path"] is None]
    return sorted(found, key=lambda problem: -problem.exit_code)


def _differs(entry: Mapping[str, Any], out: Path) -> RsftError:
    reader, target = entry["reader"], entry["target"]
    if entry["judged"]:
        said = f"reads {target} otherwise than the live model: {_figures(entry)}."
    else:
        said = f"does not read {target}: {entry['note']}"
    return CheckFailed(
        f"{reader} {said}",
        where=str(out / entry["path"]),
        hint="Do not use it.",
    )


def _not_made(entry: Mapping[str, Any]) -> RsftError:
    said = entry["refused"]
    kind = CheckFailed if said["kind"] == CheckFailed.kind else ConfigError
    message = f"{entry['target']} was not made: {said['message']}"
    return kind(message, where=said["where"], hint=said["hint"])


def _figures(entry: Mapping[str, Any]) -> str:
    found = entry[entry["judged"]]
    told = "what it answers is no number" if found is None else f"{found:.3g}"
    allowed = f"{entry['tolerance']:.3g} {entry['unit']} allowed"
    lost = entry["lost"] or 0
    gone = f", and {lost:.0%} of the adapter's effect is lost" if lost > 0 else ""
    return f"{entry['judged']} {told}, {allowed}{gone}"


def check_targets(targets: Sequence[str]) -> None:
    """Raise ConfigError for no target, and for each that is not known."""
    if not targets:
        raise ConfigError(
            "No target is given.",
            where="--to",
            hint=f"Known: {', '.join(EXPORTERS)}; several may be named.",
        )
    raise_together(
        [
            ConfigError(
                f"There is no target {name!r}.",
                where="--to",
                hint=nearest(name, EXPORTERS),
            )
            for name in targets
            if name not in EXPORTERS
        ]
    )


def check_flags(targets: Sequence[str], given: Mapping[str, bool]) -> None:
    """Raise ConfigError for each flag that is given and changes none of the targets."""
    raise_together(
        [
            ConfigError(
                "It changes nothing of what is written.",
                where=flag,
                hint=f"It is for --to {' or '.join(HEEDED[flag])}; leave it out.",
            )
            for flag, is_given in given.items()
            if is_given and not set(targets) & set(HEEDED[flag])
        ]
    )


def check_free(out: Path) -> None:
    """Raise ConfigError unless ``out`` is a folder to be made."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "There is something already.",
            where=str(out),
            hint="Pass another --out; nothing is overwritten.",
        )


def _tried(
    target: str, live: Live, out: Path, choices: Choices, reporter: Reporter
) -> Product | RsftError:
    """The product, or why there is none; then nothing of it is left."""
    folder = out / target
    folder.mkdir()
    try:
        with reporter.task(f"write {target}", 0):
            return EXPORTERS[target].write(live, folder, choices)
    except RsftError as problem:
        shutil.rmtree(folder)
        return problem.with_traceback(None)


def _verdict(live: Live, product: Product, asked: Questions, reader: str) -> Verdict:
    """What a reader makes of a product; one that cannot open it has not verified it."""
    try:
        return verify.verify(live, product, asked, reader)
    except (ModelError, MachineError) as problem:
        return Verdict(reader, False, note=problem.message)


def _refused(target: str, problem: RsftError) -> dict[str, Any]:
    """The entry of a target that was not made."""
    verdict = Verdict(None, None, note=f"refused: {problem}")
    head = {"target": target, "path": None, "refused": problem.as_record()}
    return head | verdict.as_record() | {"notes": []}


def _entries(
    product: Product,
    live: Live,
    asked: Questions | None,
    out: Path,
    reporter: Reporter,
) -> Entries:
    """A product's entries in ``export.json``, one per reader."""
    head = {"target": product.target, "path": str(product.path.relative_to(out))}
    tail = {"notes": list(product.notes)}
    if asked is None:
        return [head | UNASKED.as_record() | tail]
    found: Entries = []
    for reader in EXPORTERS[product.target].readers:
        with reporter.task(f"read {product.target} with {reader}", 0):
            verdict = _verdict(live, product, asked, reader)
        found.append(head | verdict.as_record() | tail)
    return found
