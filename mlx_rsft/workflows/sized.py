"""The plan of a pilot: what the rows look like, how fast this machine is, what fits.

Made once and written down; a pilot that goes on keeps to it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from mlx_rsft import __version__, manifest
from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.errors import ConfigError
from mlx_rsft.report import probe as probe_report
from mlx_rsft.workflows import arms, budget, compare, pace, suspecting
from mlx_rsft.workflows.budget import Pace, Size, Work
from mlx_rsft.workflows.check import save_text
from mlx_rsft.workflows.gathered import Gathered
from mlx_rsft.workflows.probe import probe
from mlx_rsft.workflows.reporter import Reporter

PLAIN = compare.PLAIN
ROBUST = "dft:floor=0.1"
"""Beside what the probe recommends: full strength, and it still learns new formats."""
NOISY = 0.1
"""Share of rows that look mislabelled from which on that one is tried first."""
PROBE_ROWS = 256
SHARE = 0.9
"""Of the minutes; a measured step is no promise, and other programs want to run too."""
COMPARED, PROBED, SUSPECTS = "compared", "probe.html", "suspects.csv"


def plan(
    gathered: Gathered,
    named: Sequence[str],
    out: Path,
    minutes: float,
    began: float,
    reporter: Reporter,
) -> dict[str, Any]:
    """Probe, measure, and settle on arms, seeds and steps; says what and why.

    Args:
        gathered: The rows, with the settings.
        named: Arms that the user wants; none: plain SFT and what the probe recommends.
        out: Folder of the pilot.
        minutes: For the whole, from ``began`` on.
        began: ``time.monotonic()`` at the beginning.
        reporter: Told of it.

    Raises:
        ConfigError: If not even the smallest pilot fits; with the minutes it would need.
        RsftError: Whatever is wrong with settings, model or rows.
    """
    resolved = gathered.resolved
    probed = _probed(resolved, named, out, reporter)
    chosen = _arms(named, probed)
    wanted, work, measured = _staged(resolved, chosen, out, reporter)
    spent = time.monotonic() - began
    left = SHARE * minutes * 60 - spent
    size = budget.choose(wanted.arms, wanted.steps, work, measured, left)
    if size is None:
        raise _too_little(wanted, work, measured, spent, minutes)
    found = {
        "version": __version__,
        "created": manifest.now(),
        "model": resolved.config.model.source,
        "data": resolved.config.data.source,
        "seed": resolved.config.seed,
        "minutes": minutes,
        "said": gathered.said,
        "findings": dict(gathered.found),
        "probe": probed,
        "pace": asdict(measured),
        "work": asdict(work),
        "wanted": asdict(wanted) | {"seconds": budget.seconds(wanted, work, measured)},
        "size": asdict(size) | {"seconds": budget.seconds(size, work, measured)},
        "order": budget.ORDER,
        "spent_seconds": spent,
    }
    for sentence in _settled(found):
        reporter.note(sentence)
    return found


def _staged(
    resolved: Resolved, chosen: Sequence[str], out: Path, reporter: Reporter
) -> tuple[Size, Work, Pace]:
    """What would be done if time allowed, in rows, and how fast this machine is."""
    loading = time.monotonic()
    seeds = budget.SEEDS[0]
    request = compare.Request(chosen, out / COMPARED, seeds, baseline=chosen[0])
    stage = compare.prepare(resolved, request, reporter)
    measured = pace.measured(stage, time.monotonic() - loading, reporter)
    if stage.trunk:
        stage.trunk.close()
    wanted = Size(tuple(stage.arms), seeds, stage.num_steps)
    return wanted, pace.work(stage), measured


def _probed(
    resolved: Resolved, named: Sequence[str], out: Path, reporter: Reporter
) -> dict[str, Any]:
    """What the bare model makes of the rows; its page and the suspects are written."""
    found = probe(resolved, named, PROBE_ROWS, reporter)
    record = found.as_record()
    suspecting.save(found.suspects, out / SUSPECTS)
    page = probe_report.probe_page(record, found.shown(), found.telling)
    save_text(page, out / PROBED)
    advice = record["recommendation"]
    suspects = len(found.suspects) if found.can_compare else 0
    noisy = suspects >= NOISY * record["rows"]
    first = f", so {ROBUST} is tried before it" if noisy else ""
    reporter.note(
        f"probe: {advice['objective']}. {advice['reason']} {suspects} of "
        f"{record['rows']} rows look mislabelled{first}."
    )
    return {
        "rows": record["rows"],
        "mean_p": record["mean_p"],
        "nll": record["nll"],
        "recommended": advice["objective"],
        "reason": advice["reason"],
        "suspects": suspects,
        "noisy": noisy,
    }


def _arms(named: Sequence[str], probed: Mapping[str, Any]) -> list[str]:
    """The baseline, then the others by how much they are wanted."""
    if named:
        chosen = list(arms.parse(named))
        if len(chosen) < budget.FEWEST_ARMS:
            raise ConfigError(
                "One arm has nothing to be held against.",
                where=arms.ARM,
                hint=f"Name two or more, such as --arm {PLAIN} --arm {ROBUST}.",
            )
        return sorted(chosen, key=lambda name: name != PLAIN)
    others = [probed["recommended"], ROBUST]
    if probed["noisy"]:
        others.reverse()
    return list(arms.parse(list(dict.fromkeys([PLAIN, *others]))))


def _too_little(
    wanted: Size, work: Work, measured: Pace, spent: float, minutes: float
) -> ConfigError:
    least = budget.smallest(wanted.arms, wanted.steps)
    whole = spent + budget.seconds(least, work, measured)
    return ConfigError(
        f"The smallest pilot takes about {whole / 60:.1f} minutes: {_told(least)}, "
        f"{work.tests} test rows; a step takes {max(measured.step.values()):.2f} s and a "
        f"row {measured.score:.3f} s here. {minutes:g} minutes are given, of which "
        f"{SHARE:.0%} are planned with.",
        where="--minutes",
        hint=f"Pass --minutes {math.ceil(whole / 60 / SHARE)}, or a smaller model, "
        "fewer --layers, a smaller --batch-size, or fewer test rows.",
    )


def _told(size: Size) -> str:
    return f"{len(size.arms)} arms, {_seeds(size)}, {size.steps} steps"


def _seeds(size: Size) -> str:
    return "1 seed" if size.seeds == 1 else f"{size.seeds} seeds"


def summary(plan: Mapping[str, Any]) -> str:
    """What is compared, in a few words."""
    size = _size(plan["size"])
    return f"{_told(size)}: {', '.join(size.arms)}"


def _settled(plan: Mapping[str, Any]) -> list[str]:
    """The sizing in sentences: what is done, when it ends, what was given up."""
    size, wanted = _size(plan["size"]), _size(plan["wanted"])
    left = plan["size"]["seconds"]
    end = datetime.now() + timedelta(seconds=left)
    said = [
        f"{summary(plan)}; about {left / 60:.1f} minutes from here, until {end:%H:%M}, "
        f"{(plan['spent_seconds'] + left) / 60:.1f} of {plan['minutes']:g} in all."
    ]
    lost: list[str] = []
    if size.seeds < wanted.seeds:
        lost.append(f"{_seeds(size)} instead of {wanted.seeds}")
    if dropped := wanted.arms[len(size.arms) :]:
        lost.append(f"without {', '.join(dropped)}")
    if size.steps < wanted.steps:
        lost.append(f"{size.steps} steps instead of {wanted.steps}")
    if lost:
        said.append(
            f"Made to fit: {'; '.join(lost)}. All of it would take "
            f"{plan['wanted']['seconds'] / 60:.1f} minutes. Given up in this order: "
            f"{plan['order']}."
        )
    return said


def _size(record: Mapping[str, Any]) -> Size:
    return Size(tuple(record["arms"]), record["seeds"], record["steps"])


def fitted(resolved: Resolved, plan: Mapping[str, Any]) -> Resolved:
    """The settings with the steps that the plan has settled on."""
    steps = {"training.steps": plan["size"]["steps"]}
    sized = configuration.changed(resolved, steps, "pilot")
    epochs = {k: v for k, v in sized.origins.items() if k != "training.epochs"}
    return replace(sized, origins=epochs)
