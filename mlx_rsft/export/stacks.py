"""Will a program take this adapter, in which form, and if not what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mlx_rsft.errors import ConfigError
from mlx_rsft.export import gguf_lora, peft
from mlx_rsft.export.live import Live, factors
from mlx_rsft.export.peft import VLLM_RANKS
from mlx_rsft.export.product import Choices

ALL = "all"
RANK_UNASKED = 16
"""What vLLM takes unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one program makes of an adapter.

    Attributes:
        accepted: Whether it takes the adapter, in some form that is exported here.
        target: What to export for it.
        reason: Why, or why not.
        advice: What to do.
    """

    stack: str
    accepted: bool
    target: str
    reason: str
    advice: str

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def answer(stack: str, live: Live) -> Answer:
    """What a stack, a key of ``STACKS``, says to the adapter."""
    return STACKS[stack](stack, live)


def _mlx(stack: str, live: Live) -> Answer:
    if live.is_full:
        return Answer(
            stack, True, "mlx-lm folder", "it holds whole weights", "as it is"
        )
    advice = "mlx_lm.server uses it only for requests whose model is default_model"
    return Answer(stack, True, "mlx", "its own format", advice)


def _lmstudio(stack: str, live: Live) -> Answer:
    del live
    reason = "it loads no adapters"
    return Answer(
        stack, False, "lmstudio", reason, "pass --to lmstudio: a merged model"
    )


def _llama_cpp(stack: str, live: Live) -> Answer:
    if problem := _no_gguf(live):
        advice = "pass --to gguf-merged: a merged model"
        return Answer(stack, False, "gguf-merged", problem, advice)
    advice = "pass it as --lora with the base model's .gguf"
    return Answer(stack, True, "gguf", "a LoRA of a known architecture", advice)


def _ollama(stack: str, live: Live) -> Answer:
    reason = "from 0.34.1 on it refuses ADAPTER in new Modelfiles"
    advice = "pass --to ollama: a merged model"
    if not _no_gguf(live):
        advice += (
            "; to an older one, name the .gguf of --to gguf in ADAPTER, never the "
            "folder: it reads its scale and its query rows wrongly"
        )
    return Answer(stack, False, "ollama", reason, advice)


def _no_gguf(live: Live) -> str:
    """Why llama.cpp takes no such adapter; empty if it does."""
    try:
        gguf_lora.refuse(live, Choices())
    except ConfigError as problem:
        return problem.message
    return ""


def _server(stack: str, live: Live) -> Answer:
    """vLLM, SGLang and TGI: PEFT without DoRA."""
    said = _transformers(stack, live)
    if not said.accepted:
        return said
    rank = max(one.rank for one in factors(live.model))
    if live.is_dora:
        reason = "it loads no DoRA"
    elif stack == "vllm" and rank > VLLM_RANKS[-1]:
        reason = f"its largest rank is {VLLM_RANKS[-1]}; this one is {rank}"
    else:
        return Answer(stack, True, "peft", said.reason, FLAGS[stack](rank))
    return Answer(stack, False, "fused", reason, "pass --to fused: a merged model")


def _transformers(stack: str, live: Live) -> Answer:
    try:
        peft.refuse(live)
    except ConfigError as problem:
        advice = "pass --to fused: a merged model"
        return Answer(stack, False, "fused", problem.message, advice)
    kind = "DoRA" if live.is_dora else "LoRA"
    reason = f"a {kind} of one rank and one whole alpha"
    return Answer(stack, True, "peft", reason, "load it with PEFT")


def _vllm_flags(rank: int) -> str:
    step = next(step for step in VLLM_RANKS if step >= rank)
    wide = f" --max-lora-rank {step}" if rank > RANK_UNASKED else ""
    return f"start it with --enable-lora{wide} --lora-modules NAME=DIR/peft"


FLAGS: dict[str, Callable[[int], str]] = {
    "vllm": _vllm_flags,
    "sglang": lambda rank: (
        f"start it with --lora-paths NAME=DIR/peft --max-lora-rank {rank}"
    ),
    "tgi": lambda rank: "set LORA_ADAPTERS=NAME=DIR/peft",
}
STACKS: dict[str, Callable[[str, Live], Answer]] = {
    "mlx-lm": _mlx,
    "lmstudio": _lmstudio,
    "ollama": _ollama,
    "llama.cpp": _llama_cpp,
    "vllm": _server,
    "sglang": _server,
    "tgi": _server,
    "transformers": _transformers,
}
