import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import testing
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.settings import AdapterSettings

TOKENS = mx.arange(3 * 19).reshape(3, 19) * 11 % 101


def _counting(monkeypatch, kind):
    """The positions that modules of a kind are called with."""
    seen = []
    stock = kind.__call__

    def call(self, x, *args, **kwargs):
        seen.append(x.shape[:-1])
        return stock(self, x, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", call)
    return seen


def _asked(split, monkeypatch, rows):
    """What the last projection of the last block is computed at."""
    block = split.backbone["layers"][-1]
    seen = _counting(monkeypatch, type(block.mlp.down_proj))
    split.supervised(TOKENS, rows)
    return seen[-1]


@pytest.mark.parametrize("chosen", [[5], [0, 18, 19, 56], list(range(0, 57, 2))])
def test_the_last_block_is_run_where_the_head_looks_and_nowhere_else(
    monkeypatch, chosen
):
    split = SplitModel(testing.tiny_model())
    assert _asked(split, monkeypatch, mx.array(chosen)) == (1, len(chosen))


def test_where_most_positions_are_looked_at_the_block_is_run_as_it_is(monkeypatch):
    split = SplitModel(testing.tiny_model())
    assert _asked(split, monkeypatch, mx.arange(50)) == (3, 19)


def test_nothing_of_the_other_positions_is_kept_for_the_backward_pass(held_by_mlx):
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(layers="last:1"))
    model.train()
    split = SplitModel(model)
    trimmed = held_by_mlx(split, 8, 256, 40)
    split.trims = False
    assert trimmed < 0.5 * held_by_mlx(split, 8, 256, 40)


class MixedLater:
    """Makes a block that lets positions see each other after its attention."""

    def __init__(self, block):
        self._stock = type(block).__call__

    def __call__(self, block, x, *args, **kwargs):
        made = self._stock(block, x, *args, **kwargs)
        return made + mx.cumsum(made, axis=1)


def test_a_block_that_mixes_positions_elsewhere_is_run_whole(monkeypatch):
    model = testing.tiny_model()
    kind = type(model.model.layers[-1])
    mixed = MixedLater(model.model.layers[-1])
    monkeypatch.setattr(kind, "__call__", lambda *args, **given: mixed(*args, **given))
    split = SplitModel(model)
    assert not split.trims
    rows = mx.array([3, 20])
    whole = split.hidden(TOKENS).reshape(57, -1)[rows]
    assert mx.array_equal(split.supervised(TOKENS, rows), whole).item()


@pytest.mark.parametrize("missing", ["self_attn", "o_proj"])
def test_a_block_with_other_names_is_trimmed_as_far_as_they_go(missing):
    model = testing.tiny_model()
    for block in model.model.layers:
        home = block if missing == "self_attn" else block.self_attn
        home[missing + "_renamed"] = home.pop(missing)
        kind = type(home)
        renamed = type(
            kind.__name__,
            (kind,),
            {
                "__getattr__": lambda self, name: self[
                    name + "_renamed" if name == missing else name
                ]
            },
        )
        home.__class__ = renamed
    split = SplitModel(model)
    assert split.trims == (missing == "o_proj")


def test_dropout_above_chosen_positions_still_drops():
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(layers="last:1", dropout=0.5))
    for block in model.model.layers[-1:]:
        factor = block.mlp.down_proj.lora_b
        block.mlp.down_proj.lora_b = mx.random.normal(factor.shape)
    model.train()
    split = SplitModel(model)
    rows = mx.array([4, 30])
    one, other = (np.array(split.supervised(TOKENS, rows)) for _ in range(2))
    assert not np.allclose(one, other)
