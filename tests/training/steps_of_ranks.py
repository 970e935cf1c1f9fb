"""Run as each of two ranks: steps of every kind of objective, together and alone."""

import hashlib
import runpy
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mlx_rsft import ranks
from mlx_rsft.objectives import build
from mlx_rsft.settings import OptimizerSettings
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper

KIT = runpy.run_path(str(Path(__file__).with_name("test_step.py")))
COUNTS = (7, 1)
"""Rows of the steps: an odd number, and fewer than ranks."""
OTHERS = ("sft", "dft:anchor=kl", "dft:normalise=weight", "dft:normalise=sequence")
"""Beside the objectives that need more than a token, of which all are tried."""


def steps(text, together):
    """Facts of some steps, and the adapter after them."""
    split, objective = KIT["_split"](), build({"name": text})
    optimizer = optimizers.make(OptimizerSettings(learning_rate=1e-3))
    references = References(split, objective)
    stepper = Stepper(
        split, objective, optimizer, references, 64, 1.0, frozenset({7}), ranks=together
    )
    facts = []
    for number, count in enumerate(COUNTS):
        references.refresh(number)
        facts.append(stepper.step(KIT["_examples"](count, number)))
    held = {name: np.array(v) for name, v in references.state().items()}
    return facts, dict(tree_flatten(split.model.trainable_parameters())), held


def compare(text, here):
    facts, adapter, held = steps(text, here)
    alone, adapter_alone, held_alone = steps(text, ranks.ALONE)
    for one, other in zip(facts, alone, strict=True):
        np.testing.assert_allclose(one.totals[:6], other.totals[:6], rtol=2e-5)
        assert one.totals.histogram == other.totals.histogram
        assert one.num_tokens == other.num_tokens
        np.testing.assert_allclose(one.grad_norm, other.grad_norm, rtol=1e-4)
        np.testing.assert_allclose(one.of_rows, other.of_rows, rtol=1e-4, atol=1e-6)
    for name, value in adapter.items():
        # Adam makes steps of up to the learning rate out of rounding where a gradient
        # is next to nothing; 1e-3 is that rate.
        np.testing.assert_allclose(
            np.array(value), np.array(adapter_alone[name]), rtol=1e-4, atol=3e-5
        )
    assert held.keys() == held_alone.keys(), "a rank does not know what others do"
    assert {n: v.size for n, v in held.items()} == {
        n: v.size for n, v in held_alone.items()
    }
    content = b"".join(np.array(adapter[name]).tobytes() for name in sorted(adapter))
    own = hashlib.sha256(content).digest()
    assert own == here.told(own) == here.told(own, by=1), "ranks hold other adapters"


def exchange(here):
    mine = mx.arange(5, dtype=mx.int32) + here.rank
    total, whole = here.summed([mine, mx.array(here.rank == 1)])
    assert total.tolist() == [1, 3, 5, 7, 9]
    assert whole.item() is True
    counts = [2, 3]
    part = mx.arange(counts[here.rank]) + 10 * here.rank
    flags = part > 10
    joined, held = here.joined([part, flags], counts)
    assert joined.tolist() == [0, 1, 10, 11, 12]
    assert held.tolist() == [False, False, False, True, True]
    assert here.any_of(here.rank == 1, False) == [True, False]
    ranks.CHUNK_BYTES = 7
    for rank in range(2):
        said = bytes(range(20 + rank))
        assert here.told(said if here.rank == rank else b"x", by=rank) == said
    assert here.told(b"") == b""


if __name__ == "__main__":
    here = ranks.here()
    assert here.size == 2
    exchange(here)
    kinds = [k for k in KIT["EVERY_KIND"] if k in OTHERS or build({"name": k}).needs]
    for kind in kinds:
        compare(kind, here)
    sys.stdout.write(f"alike: {len(kinds)}")
