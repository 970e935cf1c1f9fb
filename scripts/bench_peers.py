"""The peers' runs, through their own command lines.

A callback gets every update's time, and batches are counted on their way; nothing else
of a peer is touched. mlx is imported where it is needed, after ``bench_run`` has put a
fast BLAS under it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench_cost import RANK, RATE, SCALE, SEED, Cost, Job, Row


def mlx_lm(job: Job) -> Cost:
    """One run of ``mlx_lm.lora``."""
    from mlx_lm import lora
    from mlx_lm.tuner import trainer

    cost = Cost(checkpoint=job["checkpoint"])
    batches = partial(_counted, trainer.iterate_batches, cost)
    changed: Any = lora
    changed.train = partial(_watched, partial(trainer.train, iterate_batches=batches))

    def callbacks(*_: object, **__: object) -> Any:
        return _watcher(cost)

    changed.get_reporting_callbacks = callbacks
    return _run_peer(lora.main, job, cost, ["--fine-tune-type", "lora"])


def mlx_lm_lora(job: Job) -> Cost:
    """One run of ``mlx_lm_lora.train``."""
    import mlx.core as mx
    from mlx_lm_lora import train  # pyright: ignore

    own: Any = train
    info = mx.device_info()
    # It asks for Metal's working set without asking whether there is Metal.
    mx.device_info = lambda: {"max_recommended_working_set_size": 0, **info}
    cost = Cost(checkpoint=job["checkpoint"])
    trainer = sys.modules[own.train_sft.__module__]
    batches = partial(_counted, trainer.iterate_batches, cost)
    stock = partial(_watched, partial(own.train_sft, iterate_batches=batches))

    def train_sft(**given: Any) -> None:
        stock(**(given | {"training_callback": _watcher(cost)}))

    own.train_sft = train_sft
    loss = {"sft": "nll", "dft": "dft"}[job["objectives"][0]]
    kind = ["--train-type", "lora", "--train-mode", "sft", "--sft-loss-type", loss]
    return _run_peer(own.main, job, cost, kind)


def _run_peer(run: Callable[[], None], job: Job, cost: Cost, flags: list[str]) -> Cost:
    """Run a peer's own main with one command line and one YAML file."""
    out = Path(job["out"])
    file = out / "peer.yaml"
    text = {  # JSON is YAML
        "lora_parameters": {"rank": RANK, "dropout": 0.0, "scale": SCALE},
        "optimizer_config": {"adamw": {"bias_correction": True, "weight_decay": 0.0}},
        "fuse": False,
    }
    file.write_text(json.dumps(text), encoding="utf-8")
    named: dict[str, object] = {
        "config": file,
        "model": job["model"],
        "data": job["data"],
        "adapter-path": out / "adapter",
        "resume-adapter-file": job["start"],
        "num-layers": job["layers"],
        "batch-size": job["batch_size"],
        "iters": job["updates"],
        "optimizer": "adamw",
        "learning-rate": RATE,
        "max-seq-length": job["max_length"],
        "steps-per-report": 1,
        "save-every": job["updates"] + 1,
        "seed": SEED,
    }
    sys.argv = ["peer", "--train", *flags]
    for name, value in named.items():
        sys.argv += [f"--{name}", str(value)]
    sys.argv += ["--mask-prompt"] if job["masked"] else []
    sys.argv += ["--grad-checkpoint"] if job["checkpoint"] else []
    run()
    _check_start(Path(job["start"]), out / "adapter" / "adapters.safetensors")
    cost.seconds = sum(cost.update_seconds)
    del cost.batches[job["updates"] :]  # what was drawn and not used
    cost.adapters[job["objectives"][0]] = str(out / "adapter")
    return cost


def _check_start(start: Path, end: Path) -> None:
    """The peers pass over a tensor that they have no place for, without a word."""
    import mlx.core as mx

    ours: Any = mx.load(str(start))
    theirs: Any = mx.load(str(end))
    if other := set(ours) ^ set(theirs):
        raise ValueError(f"Only one adapter has {sorted(other)[:4]}.")


def _watched(train: Callable[..., None], **given: Any) -> None:
    import mlx.core as mx

    mx.reset_peak_memory()  # what loading took is left out, as it is with ours
    train(**given)


def _watcher(cost: Cost) -> Any:
    from mlx_lm.tuner.callbacks import TrainingCallback

    class Watcher(TrainingCallback):
        def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
            cost.update_seconds.append(1 / train_info["iterations_per_second"])
            cost.peak_bytes = int(train_info["peak_memory"] * 1e9)

    return Watcher()


def _counted(
    batches: Callable[..., Iterator[Any]], cost: Cost, **given: Any
) -> Iterator[Any]:
    """The peer's own batches; notes what the model and its loss make of them."""
    for batch_BT, spans in batches(**given):
        rows, width = batch_BT.shape
        cost.positions += rows * (width - 1)
        cost.head_rows += rows * (width - 1)
        learned: list[Row] = []
        for tokens, (start, end) in zip(batch_BT.tolist(), spans.tolist(), strict=True):
            cost.tokens += end
            # The peers learn one more position per row, the padding behind it.
            cost.supervised += end - max(start, 1)
            learned.append((tokens[: end + 1], max(start, 1)))
        cost.batches.append(learned)
        yield batch_BT, spans
