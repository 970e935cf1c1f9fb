"""How many of the planted wrong labels of the demo data ``probe`` finds.

    .venv/bin/python scripts/bench_suspects.py             # the table in RESULTS
    .venv/bin/python scripts/bench_suspects.py --rows 96 --seeds 1

Each seed writes demo data of its own with 30 % wrong labels. Precision at n: of the n
rows ranked first, the share that are wrong, where n are. By chance it is 0.30.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft.config import Layer
from mlx_rsft.data.demo import write_demo
from mlx_rsft.workflows.probe import Probe, probe
from mlx_rsft.workflows.reporter import Silent

WRONG = 0.3
TAG = "wrong"


def main() -> None:
    """Probe each seed's data and print how many wrong labels were found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rows", type=int, default=320, help="training rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    chosen = parser.parse_args()
    found = [_measured(chosen.model, chosen.rows, seed) for seed in range(chosen.seeds)]
    if chosen.json:
        print(json.dumps({"seeds": found}))
        return
    print("seed  wrong  listed  precision at n  precision of the list  recall")
    for seed, figures in enumerate(found):
        print(
            f"{seed:4}  {figures['wrong']:5}  {figures['listed']:6}  "
            f"{figures['precision_at_n']:14.2f}  {figures['precision']:21.2f}  "
            f"{figures['recall']:6.2f}"
        )


def _measured(model: str, rows: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "data"
        write_demo(place, train_rows=rows, test_rows=1, wrong_labels=WRONG, seed=seed)
        given = {"model.source": model, "data.source": str(place)}
        resolved = configuration.resolve([Layer(configuration.FLAG, given)])
        return _figures(probe(resolved, ("dft",), rows, Silent()))


def _figures(found: Probe) -> dict[str, Any]:
    wrong = sum(TAG in row.tags for row in found.looked.rows)
    marks = [TAG in suspect.tags for suspect in found.suspects]
    return {
        "wrong": wrong,
        "listed": len(marks),
        "precision_at_n": sum(marks[:wrong]) / wrong,
        "precision": sum(marks) / max(1, len(marks)),
        "recall": sum(marks) / wrong,
    }


if __name__ == "__main__":
    main()
