"""Fine-tune the demo model twice, score it three times, show what came of it.

Every step is one command of mlx-rsft, printed as you would type it in the repository.
A step that is done, by the same command, is kept: an interrupted start goes on.
Progress goes to stderr, the table to stdout. ``scripts/quickstart`` starts this file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn
from rich.table import Table

from mlx_rsft import files
from mlx_rsft.errors import RsftError
from mlx_rsft.models import demo

DATA_OPTIONS = ("--train-rows", "320", "--test-rows", "64", "--wrong-labels", "0.3")
TRAIN_OPTIONS = ("--seed", "0")
OBJECTIVES = {"sft": "sft", "dft-floor-0.1": "dft:floor=0.1"}  # folder: --objective
SPLITS = ("test", "new_parts", "new_phrasings")

ROOT = Path(__file__).resolve().parent.parent
INTERRUPTED = 130
progress = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what it makes.

    ``makes`` is a folder, or the file that takes the command's stdout. ``proof`` is
    the file that is there, and finished, only when the step is done. ``needs`` names
    every step whose repetition makes this one stale.
    """

    name: str
    command: tuple[str, ...]
    makes: Path
    proof: Path
    needs: tuple[str, ...] = ()

    def is_done(self) -> bool:
        if self.proof.name == "manifest.json":
            return read_json(self.proof).get("finished") is not None
        return self.proof.exists()


class StepError(Exception):
    """A command ended badly; carries its exit code and, if any, its message."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def steps(out: Path) -> Iterator[Step]:
    """All steps in order: the data; the base model's score; train and score."""
    data = out / "data"
    make = ("data", "demo", typed(data), *DATA_OPTIONS)
    yield Step("data", make, data, data / "train.jsonl")
    common = ("--model", "demo", "--data", typed(data))
    on_splits = ("--splits", ",".join(SPLITS), "--json")
    base = out / "base.json"
    yield Step("score base", ("eval", *common, *on_splits), base, base, ("data",))
    for name, objective in OBJECTIVES.items():
        run, result = out / name, out / f"{name}.json"
        to = ("--objective", objective, *TRAIN_OPTIONS, "--run-dir", typed(run))
        train = Step(
            f"train {name}",
            ("train", *common, *to),
            run,
            run / "manifest.json",
            ("data",),
        )
        yield train
        adapter = ("--adapter", typed(run / "adapter"))
        score = ("eval", *common, *adapter, *on_splits)
        yield Step(f"score {name}", score, result, result, ("data", train.name))


def first_light(out: Path) -> None:
    """Do what is not done yet, then show what came of it.

    ``journal.json`` keeps the command and the seconds of every step that was done.

    Raises:
        StepError: If a command ends badly.
        RsftError: If the demo model cannot be had.
    """
    started = time.monotonic()
    tell(f"In {ROOT}:")
    fetch_model()
    journal = read_json(out / "journal.json")
    plan = list(steps(out))
    for number, step in enumerate(plan, start=1):
        command = list(step.command)
        known = journal.get(step.name, {"command": command})["command"]
        if step.is_done() and known == command:
            tell(f"Kept: {step.name} ({typed(step.makes)})")
            continue
        for stale in (step, *(other for other in plan if step.name in other.needs)):
            set_aside(stale.makes)
        tell(f"\nStep {number} of {len(plan)}: {step.name}")
        begun = time.monotonic()
        run(step)
        seconds = round(time.monotonic() - begun, 1)
        journal[step.name] = {"command": command, "seconds": seconds}
        files.write_json(out / "journal.json", journal)
    work_s = sum(entry["seconds"] for entry in journal.values())
    show(out, work_s, time.monotonic() - started)


def fetch_model() -> None:
    """Bring the demo model into the user's cache; does nothing when it is there."""
    columns = ("Demo model", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=progress, transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(done_bytes: int, total_bytes: int) -> None:
            bar.update(task, completed=done_bytes, total=total_bytes)

        path = demo.gguf_file(report=report)
    tell(f"Demo model: {path}")


def set_aside(path: Path) -> None:
    """Rename what is unfinished or stale to ``NAME.old``, where one is kept."""
    if not path.exists():
        return
    old = path.with_name(path.name + ".old")
    if old.is_dir():
        shutil.rmtree(old)
    path.replace(old)
    tell(f"Unfinished or out of date, set aside: {typed(path)} is now {old.name}")


def run(step: Step) -> None:
    """Run one command as a reader would; its stdout goes where it belongs.

    Raises:
        StepError: If the command ends with an exit code other than 0.
        KeyboardInterrupt: If it was interrupted.
    """
    tell(f"$ .venv/bin/mlx-rsft {shlex.join(step.command)}")
    command = [sys.executable, "-m", "mlx_rsft", *step.command]
    if step.makes.suffix != ".json":
        judge(wait(command, sys.stderr), {})
        return
    draft = step.makes.with_suffix(".draft")
    draft.parent.mkdir(parents=True, exist_ok=True)
    with draft.open("w", encoding="utf-8") as file:
        exit_code = wait(command, file)
    judge(exit_code, read_json(draft).get("error", {}))
    draft.replace(step.makes)


def wait(command: Sequence[str], stdout: IO[str]) -> int:
    """Run ``command`` to its end; its exit code, 130 if Ctrl-C came meanwhile.

    The terminal hands Ctrl-C to the command as well, which saves and ends by itself.
    """
    stopped = False
    with subprocess.Popen(command, cwd=ROOT, stdout=stdout) as child:
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt:
                stopped = True
    return INTERRUPTED if stopped else child.returncode


def judge(exit_code: int, error: Mapping[str, str]) -> None:
    """Raise unless a command ended well; ``error`` is what ``--json`` said of it."""
    if exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    if exit_code < 0:
        raise StepError(f"Ended by signal {-exit_code}.", 128 - exit_code)
    if exit_code > 0:
        parts = (error.get(key, "") for key in ("where", "message", "hint"))
        said = " ".join(filter(None, parts)) or "The lines above say what went wrong."
        raise StepError(said, exit_code)


def show(out: Path, work_s: float, now_s: float) -> None:
    """Print the table, the paths, the minutes, and the next command to type."""
    names = {"base": "base model", **OBJECTIVES}
    results = {name: read_json(out / f"{file}.json") for file, name in names.items()}
    page = Console(highlight=False, markup=False, soft_wrap=True)
    page.print()
    page.print(table(results), soft_wrap=False)
    page.print("\nOne seed. An interval speaks of other rows, not of other seeds.\n")
    for what in ("data", *OBJECTIVES):
        page.print(f"{what:15}{typed(out / what)}")
    page.print(f"\n{work_s / 60:.1f} minutes of work, {now_s / 60:.1f} in this start.")
    best = max(OBJECTIVES, key=lambda name: mean_exact_match(results[OBJECTIVES[name]]))
    adapter = out / best / "adapter"
    prompt = first_prompt(out / "data" / f"test_{SPLITS[1]}.jsonl")
    ask = ("--model", "demo", "--adapter", typed(adapter), "--prompt", prompt)
    page.print(f"Next, in {ROOT}:\n\n.venv/bin/mlx-rsft generate {shlex.join(ask)}")


def table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    """Exact match with its 95 % interval on every split, and NLL on the first."""
    title = "Exact match (95 % interval) by split; NLL in nats per token"
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, title=title)
    grid.add_column("")
    some = next(iter(results.values()))["splits"]
    for split in SPLITS:
        grid.add_column(f"{split}\n{some[split]['rows']} rows", justify="right")
    grid.add_column(f"NLL\n{SPLITS[0]}", justify="right")
    for name, result in results.items():
        metrics = [result["splits"][split]["metrics"] for split in SPLITS]
        exact = (of["exact_match"] for of in metrics)
        cells = (f"{m['value']:.2f} ({m['low']:.2f}-{m['high']:.2f})" for m in exact)
        grid.add_row(name, *cells, f"{metrics[0]['nll']['value']:.3f}")
    return grid


def mean_exact_match(result: Mapping[str, Any]) -> float:
    """The mean of exact match over the splits, which decides what to try next."""
    measured = [result["splits"][split]["metrics"] for split in SPLITS]
    return sum(metrics["exact_match"]["value"] for metrics in measured) / len(measured)


def first_prompt(file: Path) -> str:
    """The first question of a split that training never saw."""
    with file.open(encoding="utf-8") as lines:
        row = json.loads(next(lines))
    return row["prompt"] if "prompt" in row else row["messages"][-2]["content"]


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing if it is missing or was cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def typed(path: Path) -> str:
    """A path as one would type it in the repository's folder."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def tell(text: str) -> None:
    """Say something on stderr, long lines uncut so that they can be copied."""
    progress.print(text)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="./scripts/quickstart", description=__doc__)
    default = ROOT / "runs" / "demo"
    parser.add_argument("--out", type=Path, default=default, help="default: runs/demo")
    out: Path = parser.parse_args().out.resolve()
    try:
        first_light(out)
    except KeyboardInterrupt:
        kept = ", ".join(step.name for step in steps(out) if step.is_done())
        tell(f"\nStopped; kept: {kept or 'downloads'}. ./scripts/quickstart goes on.")
        return INTERRUPTED
    except (StepError, RsftError) as problem:
        tell(
            f"\n{problem}\nOnce that is mended, ./scripts/quickstart goes on from here."
        )
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
