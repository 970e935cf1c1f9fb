"""The demo model, read back by transformers with PEFT and by llama.cpp themselves."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft.export import EXPORTERS, gguf_lora, llama_cpp, torch_peft, verify
from mlx_rsft.export.dense import log_probs
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product
from mlx_rsft.export.reading import Row
from mlx_rsft.models import fitted, load
from mlx_rsft.settings import ModelSettings

# 30 blocks of float32 on both sides, in other orders.
LOGITS_APART = 5e-4


@pytest.fixture(scope="module")
def demo(demo_gguf):
    return load.load(ModelSettings(source=str(demo_gguf)))


@pytest.fixture
def live(demo, live_of):
    """Makes a live adapter of the demo model, and takes it off after the test."""

    def make(size=0.02, **settings) -> Live:
        made = live_of(demo.model, size=size, rank=8, scale=4.0, **settings)
        return replace(made, loaded=demo)

    yield make
    fitted.remove(demo.model)


def _row(live):
    tokens = live.tokenizer.encode("The spindle at station 12 is noisy and warm.")
    return Row(tuple(tokens), 1, greedy=False)


KINDS = {
    "lora-all-linear": {"layers": "all"},
    "dora-q-v-last-6": {
        "method": "dora",
        "layers": "last:6",
        "keys": ("self_attn.q_proj", "self_attn.v_proj"),
        "size": 0.1,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_the_same_logits(kind, live, tmp_path):
    one = live(**KINDS[kind])
    row = _row(one)
    product = EXPORTERS["peft"].write(one, tmp_path, Choices())
    ours = np.array(one.model(mx.array([row.tokens]))[0, :-1])
    with torch_peft.bare(one) as bare:
        without = np.array(bare(mx.array([row.tokens]))[0, :-1])
    with torch_peft.read(one, product) as reader:
        theirs = reader.logits(row)
    assert np.abs(ours - without).max() > 1
    assert np.abs(ours - theirs).max() <= LOGITS_APART


def _read_back(live, path, reader):
    """What a reader makes of one row."""
    row = _row(live)
    asked = verify.Questions([row], [log_probs(live.model, row)])
    return verify.verify(live, Product("gguf", path), asked, reader)


def test_llama_cpp_computes_the_same_and_another_order_of_rows_is_seen(
    live, tmp_path, monkeypatch
):
    keys = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj")
    one = live(size=0.1, layers="last:6", keys=keys)
    made = EXPORTERS["gguf"].write(one, tmp_path, Choices("f16"))
    right = _read_back(one, made.path, "llama.cpp")
    assert right.verified
    assert right.gaps.largest <= llama_cpp.CLOSE
    monkeypatch.setattr(gguf_lora, "moved", lambda b, *_: b)
    made = EXPORTERS["gguf"].write(one, tmp_path, Choices())
    for reader in ("llama.cpp", "gguf"):
        wrong = _read_back(one, made.path, reader)
        assert wrong.verified is False
        assert wrong.gaps.largest > 10 * llama_cpp.CLOSE
