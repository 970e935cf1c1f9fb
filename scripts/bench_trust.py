"""Whether runs can be trusted over time: four figures, each of its own part.

    .venv/bin/python scripts/bench_trust.py alterations   # found of 1,000 altered bytes
    .venv/bin/python scripts/bench_trust.py rerun         # does a replay give the same bytes
    .venv/bin/python scripts/bench_trust.py watch         # false alarms of 100 re-trainings
    .venv/bin/python scripts/bench_trust.py notes         # what noting rows costs a step

``alterations`` and ``watch`` train a tiny model with random weights, ``rerun`` the demo
model. ``watch`` scores so many references, then as many re-trainings with other seeds,
each held against those references alone, then an adapter that was trained on wrong labels.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import ledger, records, testing
from mlx_rsft.config import FLAG, Layer, Resolved
from mlx_rsft.data.demo import write_demo
from mlx_rsft.loss import kernel
from mlx_rsft.objectives.tokens import Known, TokenStats
from mlx_rsft.records import RowWeights
from mlx_rsft.workflows import audit, rerun, suite, train, watch
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.watch import Request

# isort: split
import mlx.core as mx  # after mlx_rsft, which puts a fast BLAS under it

ANSWERS = {"red": "stop", "green": "go", "amber": "wait", "blue": "call"}
TRAIN_ROWS, ASKED_ROWS = 64, 96
TINY: dict[str, Any] = {
    "objective.name": "sft",
    "adapter.method": "full",
    "adapter.layers": "all",
    "training.steps": 80,
    "training.batch_size": 8,
    "optimizer.learning_rate": 0.005,
}
"""Enough steps for every seed to learn the task: who fails at it is no harmless one."""


def main() -> None:
    """Run one part and print its figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, help="alterations, or re-trainings")
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of the demo run")
    parser.add_argument(
        "--seed", type=int, default=0, help="of watch: rows, re-trainings"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(PARTS[chosen.part](Path(folder), chosen), indent=2))


def _alterations(root: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    model = testing.write_tiny_model(root / "model")
    run = _trained(root / "run", {**_tiny(model, _colours(root / "data")), "seed": 0})
    count, chance = chosen.count or 1000, random.Random(0)
    places, found, named = ledger.places(run), 0, 0
    began = time.perf_counter()
    for _ in range(count):
        place = chance.choice(places)
        held = (run / place).read_bytes()
        at, flip = chance.randrange(len(held)), chance.randrange(1, 256)
        (run / place).write_bytes(held[:at] + bytes([held[at] ^ flip]) + held[at + 1 :])
        findings = {one.file for one in audit.verify(run).findings}
        found += bool(findings)
        named += place in findings
        (run / place).write_bytes(held)
    seconds = (time.perf_counter() - began) / count
    return {
        "alterations": count,
        "found": found,
        "named": named,
        "files": len(places),
        "seconds_each": round(seconds, 4),
        "sound_at_the_end": not audit.verify(run).findings,
    }


def _rerun(root: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    write_demo(root / "data", train_rows=320, test_rows=1, seed=0)
    given = {
        "model.source": "demo",
        "data.source": str(root / "data" / "train.jsonl"),
        "objective.name": "dft:floor=0.1",
        "training.steps": chosen.steps,
    }
    run = _trained(root / "run", given)
    found = rerun.rerun(run, root / "again", {}, Silent())
    return {"steps": chosen.steps, **found.as_record()}


def _watch(root: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    model = testing.write_tiny_model(root / "model", chosen.seed)
    data = _colours(root / "data", seed=chosen.seed)
    place = root / "watched"
    suite.freeze(_resolved({"data.source": str(data)}), place, {}, {})
    first = 10_000 * chosen.seed
    for seed in range(first, first + chosen.references):
        _score(root, place, data, seed, "joins")
    held = (place / suite.HISTORY).read_bytes()
    alarms: list[int] = []
    count = chosen.count or 100
    for seed in range(first + 1000, first + 1000 + count):
        entry = _score(root, place, data, seed, "")
        if entry["verdict"] == watch.REGRESSION:
            alarms.append(seed)
        (place / suite.HISTORY).write_bytes(held)
    told = watch.read_history(place)
    wrong = _colours(root / "wrong", shift=1, seed=chosen.seed)
    planted = _score(root, place, wrong, first + 1000, "")
    return {
        "references": chosen.references,
        "of_references": [_figures(entry) for entry in told],
        "retrainings": count,
        "false_alarms": len(alarms),
        "seeds_alarmed_at": alarms,
        "planted": planted["verdict"],
        "of_planted": _figures(planted),
        "model": str(model.name),
    }


def _notes(root: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """Sums by row, and their line, of a step of 16 rows with 20 supervised tokens each."""
    rows, tokens, count = 16, 20, chosen.count or 300
    weight_N = mx.random.uniform(shape=(rows * tokens,))
    row_N = mx.repeat(mx.arange(rows), tokens)

    def step(known: Known) -> None:
        stats = TokenStats(-weight_N, known=known)
        mx.eval(*kernel.summed(mx.array(0.0), stats, weight_N))

    def line() -> None:
        told = [0.123456] * rows
        note = RowWeights(range(rows), told, told, told).as_record()
        records.append(root / "weights.jsonl", {"step": 1, **note})

    without, noted = Known(), Known(row=row_N, num_rows=rows)
    times = {
        "sums_without_ms": _milliseconds(lambda: step(without), count),
        "sums_by_row_ms": _milliseconds(lambda: step(noted), count),
        "line_ms": _milliseconds(line, count),
    }
    size = (root / "weights.jsonl").stat().st_size / count
    return {
        "rows": rows,
        "tokens": rows * tokens,
        **times,
        "bytes_per_step": round(size),
    }


def _milliseconds(do: Callable[[], None], count: int) -> float:
    """The median of so many."""
    taken: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        do()
        taken.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(taken), 3)


def _figures(entry: dict[str, Any]) -> dict[str, float]:
    metrics = entry["splits"]["test"]["metrics"]
    return {name: round(metric["value"], 3) for name, metric in metrics.items()}


def _score(root: Path, place: Path, data: Path, seed: int, kind: str) -> dict[str, Any]:
    model = root / "model"
    run = _trained(root / f"{data.name}-{seed}", {**_tiny(model, data), "seed": seed})
    request = Request(run / "adapter", run.name, kind)
    settings = _resolved({"model.source": str(model)})
    return watch.score(place, settings, request, Silent())


def _colours(folder: Path, shift: int = 0, seed: int = 0) -> Path:
    """Rows that a tiny model can learn; ``shift`` turns every training label wrong."""
    folder.mkdir()
    words, said = list(ANSWERS), list(ANSWERS.values())
    chance = random.Random(seed)
    for name, count, moved in (("train", TRAIN_ROWS, shift), ("test", ASKED_ROWS, 0)):
        lines: list[str] = []
        for _ in range(count):
            kind, number = chance.randrange(len(words)), chance.randrange(1000)
            answer = said[(kind + moved) % len(said)]
            row = {"prompt": f"{number} {words[kind]}", "completion": answer}
            lines.append(json.dumps(row) + "\n")
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return folder


def _tiny(model: Path, data: Path) -> dict[str, Any]:
    return {**TINY, "model.source": str(model), "data.source": str(data)}


def _trained(folder: Path, given: dict[str, Any]) -> Path:
    job = train.prepare(_resolved(given), folder, Silent())
    train.train(job, folder, Silent())
    return folder


def _resolved(given: dict[str, Any]) -> Resolved:
    return configuration.resolve([Layer(FLAG, given)])


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "alterations": _alterations,
    "rerun": _rerun,
    "watch": _watch,
    "notes": _notes,
}

if __name__ == "__main__":
    main()
