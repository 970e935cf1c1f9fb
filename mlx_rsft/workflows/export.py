"""Write an adapter for other programs, and let them read it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.errors import CheckFailed, ConfigError, nearest, raise_together
from mlx_rsft.export import EXPORTERS, verify
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.export.stacks import ALL, STACKS, Answer, answer
from mlx_rsft.export.verify import Questions, Verdict
from mlx_rsft.workflows import publish, subject
from mlx_rsft.workflows.reporter import Reporter

RECORD = "export.json"
UNASKED = Verdict(None, None, note="not verified: --no-verify")

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
        RsftError: Whatever is wrong with what is given; nothing is left behind.
    """
    check_targets(targets)
    check_free(out)
    resolved = subject.completed(resolved, adapter)
    live = subject.opened(resolved, adapter, reporter, choices.base_name)
    with files.new_folder(out) as scratch:
        made = [_written(name, live, scratch, choices, reporter) for name in targets]
        asked = None
        if verified:
            with reporter.task("ask the live model", 0):
                asked = verify.questions(live, subject.rows(resolved, live, reporter))
        told = publish.story(adapter)
        entries: Entries = []
        for product in made:
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
    """Say which readers found something else than the live model.

    Raises:
        CheckFailed: If there is one; what was written is still there.
    """
    raise_together(
        [
            CheckFailed(
                f"{entry['reader']} reads {entry['target']} otherwise than the live "
                f"model: {_figures(entry)}.",
                where=str(out / entry["path"]),
                hint="Do not use it.",
            )
            for entry in entries
            if entry["verified"] is False
        ]
    )


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


def check_free(out: Path) -> None:
    """Raise ConfigError unless ``out`` is a folder to be made."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            "There is something already.",
            where=str(out),
            hint="Pass another --out; nothing is overwritten.",
        )


def _written(
    target: str, live: Live, out: Path, choices: Choices, reporter: Reporter
) -> Product:
    folder = out / target
    folder.mkdir()
    with reporter.task(f"write {target}", 0):
        return EXPORTERS[target].write(live, folder, choices)


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
            verdict = verify.verify(live, product, asked, reader)
        found.append(head | verdict.as_record() | tail)
    return found
