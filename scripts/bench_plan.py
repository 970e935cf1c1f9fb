"""What ``plan`` estimates against what a step really holds, on two real models.

    .venv/bin/python scripts/bench_plan.py            # the table in RESULTS
    .venv/bin/python scripts/bench_plan.py --short    # three small cases

Each case is estimated and measured in a process of its own, so that the peak that mlx
reports is its own. The last lines say what the measured constants of ``memory`` would
have to be for the cases that hang on them most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import numpy as np

from mlx_rsft import config as configuration
from mlx_rsft import machine, memory
from mlx_rsft.config import Layer
from mlx_rsft.data.conversation import Example

# isort: split
import mlx.core as mx

DEMO, GEMMA = "demo", "demo-gemma"
CASES: tuple[dict[str, Any], ...] = (
    {"layers": "last:4", "rows": 4, "length": 64},
    {"layers": "last:8", "rows": 16, "length": 64, "budget": 512},
    {"layers": "last:8", "rows": 4, "length": 256},
    {"layers": "all", "rows": 2, "length": 128},
    {"layers": "last:4", "rows": 1, "length": 1024, "share": 0.05},
    {"layers": "last:2", "rows": 8, "length": 128, "share": 0.9},
    {"layers": "last:8", "rows": 4, "length": 64, "rank": 64},
    {"layers": "last:4", "rows": 4, "length": 64, "method": "dora"},
    {"layers": "last:8", "rows": 4, "length": 128, "method": "full"},
    {"layers": "all", "rows": 4, "length": 64, "method": "full"},
    {"layers": "all", "rows": 8, "length": 128, "method": "full", "share": 0.9},
    {"layers": "all", "rows": 2, "length": 256, "again": "all"},
    {"layers": "last:8", "rows": 1, "length": 1024, "again": "4"},
    {"layers": "last:4", "rows": 2, "length": 64, "quantize": "4"},
    {"layers": "last:8", "rows": 2, "length": 64, "quantize": "8"},
    {"layers": "last:4", "rows": 4, "length": 64, "objective": "dft:anchor=kl"},
    {"layers": "last:4", "rows": 4, "length": 64, "model": GEMMA},
    {"layers": "last:8", "rows": 2, "length": 128, "model": GEMMA, "share": 0.5},
    {"layers": "all", "rows": 1, "length": 256, "model": GEMMA, "share": 0.05},
    {"layers": "last:4", "rows": 4, "length": 64, "model": GEMMA, "method": "dora"},
    {"layers": "last:4", "rows": 4, "length": 64, "model": GEMMA, "method": "full"},
    {"layers": "last:2", "rows": 1, "length": 64, "model": GEMMA, "quantize": "4"},
    {"layers": "last:4", "rows": 1, "length": 1024, "model": GEMMA, "share": 0.02},
)
SHORT = (CASES[0], CASES[7], CASES[14])


def main() -> None:
    """Run the cases, print a line for each, and the worst error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="three small cases")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(json.loads(options.one))))
        return
    found: list[dict[str, Any]] = []
    for case in SHORT if options.short else CASES:
        found.append(_alone(case))
        if not options.json:
            print(_line(found[-1]), flush=True)
    worst = max(abs(one["error"]) for one in found)
    if options.json:
        facts = {"machine": machine.device().as_record()}
        print(json.dumps({**facts, "cases": found, "worst": worst}, indent=2))
        return
    print(f"worst error {worst:.1%} of {len(found)}")
    print(_calibration(found))


def _alone(case: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", json.dumps(case)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def _line(one: dict[str, Any]) -> str:
    words = " ".join(f"{key}={value}" for key, value in one["case"].items())
    return (
        f"{one['estimate'] / 1e6:8.1f} MB estimated {one['measured'] / 1e6:8.1f} "
        f"measured {one['error']:+6.1%}  {words}"
    )


def _calibration(found: list[dict[str, Any]]) -> str:
    """What the copies of a logit chunk would have to be, from one-chunk cases."""
    wanted = [
        (one["measured"] - one["estimate"] + one["items"]["loss"]) / one["chunk_bytes"]
        for one in found
        if one["chunk_bytes"] and one["items"]["loss"] > 0.1 * one["measured"]
    ]
    shown = ", ".join(f"{copies:.2f}" for copies in wanted) or "no case says"
    return f"CHUNK_COPIES is {memory.CHUNK_COPIES}; the cases want {shown}"


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """Estimate, then run two steps: the second has the optimizer's moments."""
    from mlx_rsft.models.split import SplitModel
    from mlx_rsft.objectives import build
    from mlx_rsft.workflows import assemble, sizing
    from mlx_rsft.workflows.portions import RowSize
    from mlx_rsft.workflows.reporter import Silent
    from mlx_rsft.workflows.sizing import Where

    config = configuration.resolve([Layer("case", _settings(case))]).config
    objective = build({"name": case.get("objective", "dft")})
    length, rows = case["length"], case["rows"]
    trained = max(1, int(length * case.get("share", 0.25)))
    sizes = [RowSize(length, trained)] * rows
    here = Where("here", 1 << 40, 1 << 40, stock=False)
    estimate = sizing.estimate(config, sizes, objective, here)
    before = mx.get_peak_memory()
    loaded = assemble.model(config, Silent())
    split = SplitModel(loaded.model)
    assemble.fresh_adapter(loaded, config)
    split.recomputed = estimate.recomputed
    stepper = assemble.stepper(split, objective, loaded, config)
    split.model.train()
    random = np.random.default_rng(0)
    for step in range(2):
        mx.reset_peak_memory()
        tokens = random.integers(0, 40_000, (rows, length)).tolist()
        spans = ((length - trained, length),)
        stepper.references.refresh(step)
        stepper.step([Example(tuple(row), spans, "bench") for row in tokens])
    measured = mx.get_peak_memory()
    total = estimate.items.total
    copies = memory.CHUNK_COPIES + sizing.pulled(objective)
    return {
        "case": case,
        "items": estimate.items.as_record(),
        "estimate": total,
        "measured": measured,
        "error": total / measured - 1,
        "before_bytes": before,
        "chunk_bytes": estimate.items.loss // copies
        if estimate.one_chunk and copies == memory.CHUNK_COPIES
        else 0,
    }


def _settings(case: dict[str, Any]) -> dict[str, object]:
    given: dict[str, object] = {
        "model.source": case.get("model", DEMO),
        "model.quantize": case.get("quantize", "none"),
        "adapter.layers": case["layers"],
        "adapter.method": case.get("method", "lora"),
        "training.batch_size": case["rows"],
        "training.token_budget": case.get("budget", 2048),
        "training.grad_checkpoint": case.get("again", "off"),
        "training.trunk_cache": "off",
    }
    return given | ({"adapter.rank": case["rank"]} if "rank" in case else {})


if __name__ == "__main__":
    main()
