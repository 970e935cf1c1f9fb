"""Train the same work with mlx-rsft and with its peers in turn; print the ratios.

    ./scripts/bench                          # every scenario, 5 pairs
    ./scripts/bench --scenario a,c --pairs 3
    ./scripts/bench --short                  # a tiny model: does everything run?

Each run is a process of its own; which side goes first alternates. Same float32 model
folder, rows, blocks and initial adapter, AdamW with bias correction at a constant rate, no
clipping, as many updates. mlx-lm trains plain SFT, mlx-lm-lora DFT, and ours the same in
each pair. Seconds are those of the updates alone, ours with what it keeps
of the frozen blocks; loading and rendering are left out on both sides. In f they are
those of whole processes, and an objective that no peer has is trained as plain SFT.

Each side draws its own batches; the peers learn one token of padding behind each row that
is shorter than the longest, and mlx-lm-lora draws with repetition. So that this does not
hide unequal work, ours is run once more, untimed, on the very batches and padding that
the peer drew: its held-out NLL is the one that has to be the peer's. The peers draw the
next batch while their clock stands still.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import bench_cost
import bench_env
import bench_report
import bench_work
from bench_work import SCENARIOS, Scenario

from mlx_rsft import config, files, machine, manifest
from mlx_rsft.config import Layer
from mlx_rsft.models import adapters, load
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.evaluate import evaluate
from mlx_rsft.workflows.reporter import Silent

RUN = Path(__file__).with_name("bench_run.py")
OBJECTIVES = {"mlx-lm": "sft", "mlx-lm-lora": "dft"}
OURS = "ours"
LONGEST = 2048
Found = dict[str, Any]


def main() -> None:
    """Measure; tables go to stdout, progress to stderr, all figures to --json."""
    options = _options()
    found: Found = {"machine": machine.device().as_record(), "scenarios": {}}
    found["versions"] = bench_env.versions()
    pythons = {peer: bench_env.python(peer, tell) for peer in options.peers}
    for name in options.scenario:
        scenario = SCENARIOS[name].as_short() if options.short else SCENARIOS[name]
        with tempfile.TemporaryDirectory() as scratch:
            bench = Bench(name, scenario, pythons, Path(scratch))
            measured = bench.pairs(options.pairs)
        found["scenarios"][name] = measured
        judged = not options.short
        print(bench_report.table(name, scenario, measured, judged=judged), flush=True)
        if options.json:
            files.write_json(options.json, found)


def _options() -> argparse.Namespace:
    def names(known: Sequence[str]) -> Any:
        def parse(text: str) -> list[str]:
            chosen = text.split(",")
            if unknown := set(chosen) - set(known):
                raise argparse.ArgumentTypeError(
                    f"{', '.join(sorted(unknown))}; known: {', '.join(known)}"
                )
            return chosen

        return parse

    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    every, peers = list(SCENARIOS), list(bench_env.NAMES)
    parser.add_argument("--scenario", type=names(every), default=every, metavar="A,B")
    parser.add_argument("--pairs", type=int, default=5, help="pairs per peer")
    parser.add_argument("--peers", type=names(peers), default=peers, metavar="A,B")
    parser.add_argument("--short", action="store_true", help="tiny model and rows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure")
    return parser.parse_args()


def tell(text: str) -> None:
    """Say how far it is."""
    sys.stderr.write(f"{text}\n")


@dataclass(slots=True)
class Bench:
    """The runs of one scenario.

    Attributes:
        pythons: Interpreter by peer.
        scratch: Folder for all that the runs write.
        longest: Tokens of the longest row. The peers pad no further, so that where all rows
            are as long they learn no token of padding.
        scores: Held-out NLL by the hash of an adapter: equal bytes are scored once.
        told: Held-out NLL of ours on a peer's batches, by the hash of these.
    """

    name: str
    scenario: Scenario
    pythons: dict[str, str]
    scratch: Path
    model: Path = Path()
    longest: int = LONGEST
    scores: dict[str, float] = field(default_factory=dict[str, float])
    told: dict[str, float] = field(default_factory=dict[str, float])

    def pairs(self, number: int) -> Found:
        """``number`` pairs with each peer, by peer, and what the bare model scores."""
        self._prepare()
        pairs: dict[str, list[Found]] = {}
        for number_done in range(number):
            for peer in self._opponents():
                sides = [OURS, peer] if number_done % 2 == 0 else [peer, OURS]
                tell(f"{self.name}, pair {number_done + 1} of {number}, {peer}:")
                runs = {side: self._side(side, peer) for side in sides}
                both = {"ours": runs[OURS], "peer": runs[peer]}
                pairs.setdefault(peer, []).append(both)
        base = self._nll(None)
        return {"work": asdict(self.scenario), "base_nll": base, "pairs": pairs}

    def _prepare(self) -> None:
        """Write what every run reads: model, rows, and the adapter before training."""
        self.model = bench_work.model_folder(self.scenario.model, self.scratch)
        settings = bench_cost.settings(self._job(OURS, ["sft"])).config
        loaded = load.load(settings.model)
        bench_work.write_rows(self.scenario, loaded.tokenizer, self.scratch / "data")
        paths = assemble.training_paths(settings)
        splits = assemble.splits(paths, settings, loaded, Silent())
        self.longest = max(len(row.tokens) for row in splits.rows["train"])
        written = assemble.fresh_adapter(loaded, settings)
        adapters.save(loaded.model, written, self.scratch / "start")

    def _opponents(self) -> list[str]:
        """Whom ours is paired with; of several objectives each has its own trainer."""
        return [" + ".join(self.pythons)] if self.scenario.arms else list(self.pythons)

    def _side(self, side: str, peer: str) -> Found:
        """One side of a pair: its processes in turn, as one record."""
        arms = self.scenario.arms
        if side == OURS and arms:
            runs = [self._run("ours, all arms", sys.executable, arms)]
        elif side == OURS:
            runs = [self._run(OURS, sys.executable, [OBJECTIVES[peer]])]
        elif arms:
            runs = [self._run(*self._trainer(arm)) for arm in arms]
        else:
            runs = [self._run(side, self.pythons[side], [OBJECTIVES[side]])]
        together = ("seconds", "process_seconds", "tokens", "supervised", "positions")
        record: Found = {
            **{key: sum(run[key] for run in runs) for key in (*together, "head_rows")},
            **{
                key: max(run[key] for run in runs)
                for key in ("peak_bytes", "resident_bytes")
            },
            **{key: runs[0][key] for key in ("checkpoint", "blas")},
            **{key: _joined(run[key] for run in runs) for key in ("nll", "told_nll")},
        }
        clock = "process_seconds" if arms else "seconds"
        tell(f"  {side}: {record[clock]:.1f} s, {record['peak_bytes'] / 1e6:,.0f} MB")
        return record

    def _trainer(self, arm: str) -> tuple[str, str, list[str]]:
        """Which peer trains an objective; one that none has costs what SFT costs."""
        for peer, python in self.pythons.items():
            if OBJECTIVES[peer] == arm:
                return peer, python, [arm]
        peer, python = next(iter(self.pythons.items()))
        return peer, python, [OBJECTIVES[peer]]

    def _run(self, runner: str, python: str, objectives: Sequence[str]) -> Found:
        job = self._job(runner, objectives)
        began = perf_counter()
        result = self._started(python, job)
        seconds = perf_counter() - began
        nll = self._scored(result.pop("adapters"))
        batches = result.pop("batches")
        told = {name: self._told(name, batches) for name in nll} if batches else {}
        return result | {"process_seconds": seconds, "nll": nll, "told_nll": told}

    def _told(self, objective: str, batches: object) -> float:
        """Held-out NLL of ours on the batches that a peer drew."""
        key = objective + manifest.text_sha256(json.dumps(batches))
        if key not in self.told:
            job = self._job("ours, told", [objective]) | {"batches": batches}
            found = self._scored(self._started(sys.executable, job)["adapters"])
            self.told[key] = found[objective]
        return self.told[key]

    def _started(self, python: str, job: Found) -> Found:
        """One process from its beginning to its end."""
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        files.write_json(out / "job.json", job)
        _start([python, str(RUN), str(out / "job.json"), str(out / "result.json")])
        return json.loads((out / "result.json").read_text(encoding="utf-8"))

    def _scored(self, adapters: dict[str, str]) -> dict[str, float]:
        return {name: self._nll(Path(folder)) for name, folder in adapters.items()}

    def _job(self, runner: str, objectives: Sequence[str]) -> Found:
        work = self.scenario
        return {
            "side": runner,
            "model": str(self.model),
            "data": str(self.scratch / "data"),
            "out": str(self.scratch / "out"),
            "start": str(self.scratch / "start" / "adapters.safetensors"),
            "objectives": list(objectives),
            "layers": work.layers,
            "batch_size": work.batch_size,
            "epochs": work.epochs,
            "updates": work.updates,
            "masked": work.prompt > 0,
            "checkpoint": work.checkpoint,
            "max_length": self.longest,
        }

    def _nll(self, adapter: Path | None) -> float:
        """Nats per token of the held-out rows, by our evaluation for every side."""
        key = files.sha256(adapter / "adapters.safetensors") if adapter else ""
        if key not in self.scores:
            values: dict[str, object] = {
                "model.source": str(self.model),
                "data.source": str(self.scratch / "data"),
                "evaluation.metrics": "nll",
                "evaluation.splits": "test",
            }
            settings = config.resolve([Layer("scripts/bench", values)])
            record = evaluate(settings, adapter, Silent())
            self.scores[key] = record["splits"]["test"]["metrics"]["nll"]["value"]
        return self.scores[key]


def _joined(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    return {name: value for part in parts for name, value in part.items()}


def _start(command: Sequence[str]) -> None:
    """Run one process to its end; where it fails, what it said goes on stderr."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tell(done.stdout[-2000:] + done.stderr[-4000:])
        sys.exit(f"{' '.join(command[:2])} ended with {done.returncode}.")


if __name__ == "__main__":
    main()
