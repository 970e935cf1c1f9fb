"""What other programs call the modules of a model, family by family.

A family is here only if its linear modules have the names, shapes and row order that
they have in transformers: each was held against transformers with an adapter on it. A
module that is not listed is refused by name, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

GATED: Mapping[str, str] = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
FUSED: Mapping[str, str] = {
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEAD, HEAD_GGUF = "lm_head", "output"
EMBEDDING = "model.embed_tokens"
BLOCK = "model.layers."


class Family(NamedTuple):
    """How a family's modules are called elsewhere.

    Attributes:
        modules: Name in a block, in mlx-lm and transformers alike: llama.cpp's name.
        gguf: The architecture in llama.cpp; empty where it is not known here.
        rotated: Whether llama.cpp's files hold query and key rows in another order.
    """

    modules: Mapping[str, str]
    gguf: str = ""
    rotated: bool = False


FAMILIES: dict[str, Family] = {
    "llama": Family(GATED, "llama", rotated=True),
    "mistral": Family(GATED, "llama", rotated=True),
    "smollm3": Family(GATED, "smollm3", rotated=True),
    "granite": Family(GATED, "granite", rotated=True),
    "qwen2": Family(GATED, "qwen2"),
    "qwen3": Family(GATED, "qwen3"),
    "gemma2": Family(GATED, "gemma2"),
    "gemma3_text": Family(GATED, "gemma3"),
    "phi3": Family(FUSED, "phi3"),
    "olmo2": Family(GATED, "olmo2"),
    "helium": Family(GATED),
    "seed_oss": Family(GATED),
    "ernie4_5": Family(GATED),
}


def block_module(path: str) -> tuple[int, str] | None:
    """The block's number and the name in it, of ``model.layers.3.mlp.up_proj``."""
    number, _, name = path.removeprefix(BLOCK).partition(".")
    if not path.startswith(BLOCK) or not number.isdecimal():
        return None
    return int(number), name


def known(family: Family, path: str) -> bool:
    """Whether transformers has a module of this name and meaning."""
    found = block_module(path)
    if found is None:
        return path in (HEAD, EMBEDDING)
    return found[1] in family.modules


def gguf_tensor(family: Family, path: str) -> str | None:
    """llama.cpp's name of a linear module's weight, without ``.weight``."""
    found = block_module(path)
    if found is None:
        return HEAD_GGUF if path == HEAD else None
    name = family.modules.get(found[1])
    return f"blk.{found[0]}.{name}" if name else None
