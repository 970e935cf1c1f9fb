"""What the GPU is asked for at once: a micro-batch, and never a whole step."""

import itertools

import mlx.core as mx
import pytest

from mlx_rsft import lanes, testing
from mlx_rsft.data.conversation import Example
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import AdapterSettings, OptimizerSettings
from mlx_rsft.training import gradient
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper


@pytest.mark.parametrize(("budget", "pieces"), [(1024, 1), (64, 4), (16, 16)])
def test_a_micro_batch_is_computed_before_the_next_one_is_laid_out(
    budget, pieces, monkeypatch
):
    monkeypatch.setattr(lanes, "count", lambda: 1)
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(rank=2, layers="all"))
    split, objective = SplitModel(model), build({"name": "sft"})
    optimizer = optimizers.make(OptimizerSettings())
    optimizer.init(model.trainable_parameters())
    references = References(split, objective)
    stepper = Stepper(split, objective, optimizer, references, budget, clip_norm=1.0)
    rows = [Example(tuple(range(n, n + 12)), ((4, 12),), "row") for n in range(16)]
    stepper.step(rows)  # compiles, and looks once at what the backend can do
    seen, laid_out, compute = [], gradient.shards.cut, mx.eval

    def cut(batch, *more):
        seen.append(batch.tokens_BT.size)
        return laid_out(batch, *more)

    def evaluate(*arrays):
        seen.append("summed" if isinstance(arrays[0], dict) else "computed")
        compute(*arrays)

    monkeypatch.setattr(gradient.shards, "cut", cut)
    monkeypatch.setattr(mx, "eval", evaluate)
    stepper.step(rows)
    places = [n for n, what in enumerate(seen) if isinstance(what, int)]
    assert len(places) == pieces
    assert max(seen[place] for place in places) <= budget
    for begin, end in itertools.pairwise([*places, len(seen)]):
        asked = seen[begin + 1 : end]
        sum_at = asked.index("summed")  # the gradient, with those before it
        assert set(asked[:sum_at]) == {"computed"}
        assert sum_at >= 3  # both passes apart, and the loss between them
        assert begin == places[-1] or asked[sum_at + 1 :] == []
