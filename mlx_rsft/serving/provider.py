"""The one model that is served, in the form mlx-lm's generator asks for it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

CACHED = 10
"""Conversations whose beginning is kept computed."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and how it answers where a client does not say.

    Attributes:
        name: What the user called the model; clients read it in ``/v1/models``.
        adapter: What is known of the adapter on it, or None.
        context: Longest text in tokens, or None if the model does not say.
        template_options: The switches of its chat template.
        max_tokens: Longest answer.
        temperature: 0 takes the likeliest token.
        origins: Web pages that may ask, as ``https://host:port``.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    adapter: Mapping[str, Any] | None
    context: int | None
    template_options: Mapping[str, bool]
    max_tokens: int = 512
    temperature: float = 0.0
    origins: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        """What a client may know of it."""
        return {"model": self.name, "adapter": self.adapter, "context": self.context}


class Provider:
    """Stands in for mlx-lm's ModelProvider: one model, already loaded.

    Attributes are those that its generator and its handler read.
    """

    def __init__(self, served: Served) -> None:
        self.model = served.model
        self.tokenizer = served.tokenizer
        self.processor = None
        self.draft_model = None
        self.model_key = (served.name, None, None)
        self.is_batchable = all(
            hasattr(cache, "merge") for cache in make_prompt_cache(served.model)
        )
        self.cli_args = Namespace(
            model=served.name,
            adapter_path=None,
            draft_model=None,
            num_draft_tokens=0,
            allowed_origins=served.origins,
            chat_template_args=dict(served.template_options),
            temp=served.temperature,
            top_p=1.0,
            top_k=0,
            min_p=0.0,
            max_tokens=served.max_tokens,
            decode_concurrency=32,
            prompt_concurrency=8,
            prefill_step_size=2048,
            prompt_cache_size=CACHED,
            prompt_cache_bytes=None,
            kv_bits=None,
            kv_group_size=64,
            quantized_kv_start=0,
        )

    def load_default(self) -> None:
        """The model is loaded already."""

    def load(self, *_wanted: object) -> tuple[nn.Module, Any]:
        """The model that is served, whatever is wanted."""
        return self.model, self.tokenizer

    def reset(self) -> None:
        """The model stays; the caller of the server owns it."""
