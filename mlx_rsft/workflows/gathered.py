"""The rows of a pilot: the demo's, the user's, or one file of theirs cut into splits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files
from mlx_rsft.config import Resolved
from mlx_rsft.data import source
from mlx_rsft.data.demo import write_demo
from mlx_rsft.data.source import TEST, TRAIN, VALID
from mlx_rsft.data.splits import is_validation
from mlx_rsft.errors import CheckFailed, DataError, RunError
from mlx_rsft.workflows.check import check
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.split import split

FOLDER, MADE = "data", "made.json"
"""Rows that were made or cut here, and what from."""
SHARES = {VALID: 0.1, TEST: 0.3}
"""Of a file without test rows: a verdict needs more of them than training lacks."""
DEMO_ROWS, DEMO_TESTS, DEMO_WRONG = 320, 96, 0.3
DEMO_MODEL = "demo"
DEMO_SETTINGS: Mapping[str, object] = {
    "model.source": DEMO_MODEL,
    "adapter.layers": "last:6",
    "adapter.rank": 16,
    "optimizer.learning_rate": 3e-3,
    "training.steps": 80,
}
"""A rate for a small model, and steps enough to learn the wrong labels by heart."""
TOLERATED = ("duplicate", "contradiction")
"""What a pilot goes on with: answers that may be wrong are what it is about."""
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a pilot trains and tests on.

    Attributes:
        resolved: The settings, with the place of the rows.
        found: How many findings of each kind the check has.
        said: What was done with the rows, in sentences.
    """

    resolved: Resolved
    found: Mapping[str, int]
    said: list[str] = field(default_factory=list[str])


def gather(resolved: Resolved, out: Path, reporter: Reporter) -> Gathered:
    """The rows, checked; what had to be made lies in ``out``.

    Raises:
        ConfigError: If a model is given without data, or data without a model.
        DataError: If there is nothing to test on, and no one file to cut.
        CheckFailed: If rows cannot be used, or test rows are among the training rows.
    """
    config = resolved.config
    said: list[str] = []
    if not (config.model.source or config.data.source):
        resolved = _demo(resolved, out)
        said.append("The demo: its rows, its model and its settings.")
    configuration.require(resolved.config, "model.source", "data.source")
    if cut := _cut(resolved, out, reporter):
        resolved, sentence = cut
        said.append(sentence)
    report = check(resolved, Path(resolved.config.data.source), reporter)
    _raise_if_hurt(report, resolved)
    said += [
        f"{count} findings of kind {kind}; mlx-rsft data check names them."
        for kind, count in report["counts"].items()
    ]
    for sentence in said:
        reporter.note(sentence)
    return Gathered(resolved, report["counts"], said)


def _demo(resolved: Resolved, out: Path) -> Resolved:
    folder, seed = out / FOLDER, resolved.config.seed
    of = {"demo": [DEMO_ROWS, DEMO_TESTS, DEMO_WRONG, seed]}
    sizes = {"train_rows": DEMO_ROWS, "test_rows": DEMO_TESTS}
    _make(
        out,
        of,
        lambda: write_demo(folder, **sizes, wrong_labels=DEMO_WRONG, seed=seed),
    )
    mine = {k: v for k, v in DEMO_SETTINGS.items() if not resolved.is_given(k)}
    if resolved.is_given("training.epochs"):
        mine.pop("training.steps", None)
    mine["data.source"] = str(folder)
    return configuration.changed(resolved, mine, "demo")


def _cut(
    resolved: Resolved, out: Path, reporter: Reporter
) -> tuple[Resolved, str] | None:
    """The settings with splits made of one file, and what was done; None if not needed.

    A folder that was cut before is taken as it is.
    """
    place = Path(resolved.config.data.source).expanduser()
    found = source.find_splits(place)
    tests = [name for name in found if name != TRAIN and not is_validation(name)]
    if tests and not source.is_one_split(place):
        return None
    folder = out / FOLDER
    if len(found) > 1:
        raise DataError(
            "There is no test split.",
            where=str(place),
            hint=f"Cut its training rows alone: mlx-rsft data split "
            f"{next(iter(found[TRAIN]))} --valid 0 --test {SHARES[TEST]} --out DIR",
        )
    data = resolved.config.data
    of = {
        "cut": [files.sha256(path) for paths in found.values() for path in paths],
        "as": [data.format, list(data.map), data.encoding, resolved.config.seed],
        "shares": SHARES,
    }
    _make(out, of, lambda: split(resolved, place, folder, reporter, shares=SHARES))
    sentence = (
        f"There is no test split, so {place} is cut by the seed into train, valid "
        f"({SHARES[VALID]:.0%}) and test ({SHARES[TEST]:.0%}) rows in {folder}; none of "
        "them has shifted. mlx-rsft data split --hold-out TAG makes a shifted split."
    )
    given = {"data.source": str(folder), "data.map": (), "data.encoding": "auto"}
    return configuration.changed(resolved, given, "pilot"), sentence


def _make(out: Path, of: Mapping[str, Any], make: Callable[[], object]) -> None:
    """Make the rows, unless they are there; what they were made of lies beside them.

    Raises:
        RunError: If there are others.
    """
    place = out / MADE
    if (out / FOLDER).exists():
        if not place.exists() or json.loads(place.read_text(encoding="utf-8")) != of:
            raise RunError(
                "The rows that are here were not made of what is asked for now.",
                where=str(out / FOLDER),
                hint="Pass another --out.",
            )
        return
    existed = out.exists()
    files.write_json(place, of)
    try:
        make()
    except BaseException:
        shutil.rmtree(out) if not existed else place.unlink()
        raise


def _raise_if_hurt(report: Mapping[str, Any], resolved: Resolved) -> None:
    """Say what makes the rows useless, or a verdict on them void."""
    bad = [one for one in report["findings"] if one["kind"] not in TOLERATED]
    if not bad:
        return
    lines = [f"{one['where']}: {one['kind']}: {one['message']}" for one in bad[:SHOWN]]
    more = f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    config = resolved.config
    raise CheckFailed(
        f"{len(bad)} findings would spoil the verdict:\n" + "\n".join(lines) + more,
        where=config.data.source,
        hint=f"See all of them: mlx-rsft data check {config.data.source} "
        f"--model {config.model.source}",
    )


def hashes(resolved: Resolved) -> dict[str, list[str]]:
    """The content of every split, by its name."""
    found = source.find_splits(Path(resolved.config.data.source).expanduser())
    return {
        name: [files.sha256(path) for path in found[name]] for name in sorted(found)
    }
