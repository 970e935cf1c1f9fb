"""Padding, throughput and memory of the data path.

    .venv/bin/python scripts/bench_data.py            # the figures in README and RESULTS
    .venv/bin/python scripts/bench_data.py --short    # the same in some seconds

Padding is the share of computed positions that hold no token, on 10,000 rows of
log-normal length (sigma 1) in windows of 32: ours, and the batches that mlx-lm's trainer
makes of the same rows. Throughput and memory are those of whole commands in processes of
their own, on generated chat rows, with the demo model's tokenizer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlx_rsft import (
    files,
    machine,  # before mlx.core: puts a fast BLAS under it
)
from mlx_rsft.data import batching, rendered

# isort: split
import numpy as np

ROWS, SIGMA, WINDOW, LONGEST = 10_000, 1.0, 32, 2048
MEDIANS = (60, 150, 300)
SEED = 0
RENDER = """
import sys
from pathlib import Path
import mlx_rsft
from mlx_rsft.data import examples, formats, rendered
from mlx_rsft.models import load
from mlx_rsft.settings import ModelSettings

tokenizer = load.tokenizer(ModelSettings(source="demo"))
shape = examples.Shape(tokenizer, "all", 2048, "refuse")
def make(outcome):
    return examples.examples(formats.conversations(Path(sys.argv[1])), shape, outcome)
rows = rendered.cached(sys.argv[2], make)
assert sum(len(row.tokens) for row in rows) > 0
"""


def main() -> None:
    """Measure, print a line per figure, and one JSON document with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer rows")
    parser.add_argument("--json", action="store_true", help="one document on stdout")
    options = parser.parse_args()
    rows = 1_000 if options.short else 200_000
    found: dict[str, Any] = {
        "machine": machine.device().as_record(),
        "padding": [padding(median) for median in MEDIANS],
        "streams": streams(rows),
    }
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"padding, {ROWS:,} rows of log-normal length, windows of {WINDOW}:")
    for case in found["padding"]:
        print(
            f"  median {case['median']:3} tokens: ours {case['ours']:6.1%}   "
            f"mlx-lm {case['mlx_lm']:6.1%}"
        )
    print(f"{rows:,} chat rows, {found['streams'][0]['megabytes']:.0f} MB:")
    for case in found["streams"]:
        print(
            f"  {case['what']:28} {case['rows_per_s']:9,.0f} rows/s   "
            f"peak {case['peak_megabytes']:6,.0f} MB resident"
        )


def padding(median: int) -> dict[str, Any]:
    """Padding shares of one length distribution, ours and mlx-lm's."""
    drawn = np.exp(np.random.default_rng(SEED).normal(math.log(median), SIGMA, ROWS))
    lengths: list[int] = np.clip(drawn, 4, LONGEST).astype(int).tolist()
    return {
        "median": median,
        "ours": 1 - sum(lengths) / _our_positions(lengths),
        "mlx_lm": _their_padding(lengths),
    }


def _our_positions(lengths: list[int]) -> int:
    positions = 0
    for step in range(batching.steps_per_epoch(ROWS, WINDOW)):
        rows = batching.window(step, ROWS, WINDOW, SEED)
        window = [lengths[row] for row in rows]
        for group in batching.micro_batches(window, token_budget=LONGEST, at_once=1):
            width = batching.padded_width(max(window[place] for place in group))
            positions += width * len(group)
    return positions


def _their_padding(lengths: list[int]) -> float:
    """The share of padding in one epoch of mlx-lm's trainer, its dropped tail left out."""
    from mlx_lm.tuner.datasets import CacheDataset
    from mlx_lm.tuner.trainer import iterate_batches

    class Rows:
        def __len__(self) -> int:
            return len(lengths)

        def __getitem__(self, place: int) -> dict[str, int]:
            return {"length": lengths[place]}

        def process(self, row: dict[str, int]) -> tuple[list[int], int]:
            return [1] * row["length"], 0

    rows: Any = Rows()
    tokens = positions = 0
    for batch, spans in iterate_batches(CacheDataset(rows), WINDOW, LONGEST):
        tokens += int(np.array(spans)[:, 1].sum())
        positions += int(batch.size)
    return 1 - tokens / positions


def streams(num_rows: int) -> list[dict[str, Any]]:
    """Rows per second and peak memory of checking and of rendering a large file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.jsonl"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(_chat_rows(num_rows))
        check = [sys.executable, "-m", "mlx_rsft", "data", "check", str(file)]
        key = Path(folder).name
        render = [sys.executable, "-c", RENDER, str(file), key]
        cases = {
            "data check": check,
            "data check --model demo": [*check, "--model", "demo"],
            "render and read back": render,
            "read back, rendered before": render,
        }
        try:
            return [_stream(*case, num_rows, file) for case in cases.items()]
        finally:
            shutil.rmtree(files.cache_folder() / rendered.FOLDER / key)


def _chat_rows(num_rows: int) -> Iterator[str]:
    random = np.random.default_rng(SEED)
    words = np.array(
        [
            "spindle",
            "pump",
            "belt",
            "gear",
            "noisy",
            "leaks",
            "jams",
            "hot",
            "line",
            "bay",
            "at",
            "since",
        ]
    )
    for number in range(num_rows):
        said = " ".join(random.choice(words, int(random.integers(20, 60))))
        row = {"prompt": f"note {number}: {said}", "completion": f"defect: {said[:40]}"}
        yield json.dumps(row) + "\n"


def _stream(what: str, command: list[str], num_rows: int, file: Path) -> dict[str, Any]:
    began = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    assert os.waitstatus_to_exitcode(status) in (0, 3), command
    scale = 1 if sys.platform == "darwin" else 1024
    return {
        "what": what,
        "rows": num_rows,
        "megabytes": file.stat().st_size / 1e6,
        "rows_per_s": num_rows / seconds,
        "peak_megabytes": usage.ru_maxrss * scale / 1e6,
    }


if __name__ == "__main__":
    main()
