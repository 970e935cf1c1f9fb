"""Serve a model, with or without an adapter, to programs that speak OpenAI's protocol."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data import templates
from mlx_rsft.models import fitted, load
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.strength import Strength
from mlx_rsft.serving.provider import Served
from mlx_rsft.serving.server import LOOPBACK, Server
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter

PROBE = 8
"""Tokens on which it is checked that the adapter does something."""


@dataclass(frozen=True, slots=True)
class Manner:
    """Where a server listens, and how it answers where a client does not say."""

    host: str = "127.0.0.1"
    port: int = 8080
    max_tokens: int = 512
    temperature: float = 0.0
    thinking: bool = False
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ready:
    """A server that listens, with the model it will answer with."""

    server: Server
    served: Served

    def as_record(self) -> dict[str, Any]:
        """Where it is, and what is served."""
        return {"url": self.server.url, **self.served.as_record()}

    def run(self) -> None:
        """Answer until the process is interrupted."""
        self.server.run(self.served)


def serve(
    resolved: Resolved, adapter: Path | None, manner: Manner, reporter: Reporter
) -> Ready:
    """Listen, and load what is to be served.

    Raises:
        RsftError: Whatever is wrong with the address, settings, model or adapter.
    """
    configuration.require(resolved.config, "model.source")
    with contextlib.ExitStack() as stack:
        server = Server(manner.host, manner.port, reporter.note)
        stack.callback(server.server_close)
        served = _served(resolved, adapter, manner, reporter)
        stack.pop_all()
    if manner.host not in LOOPBACK:
        reporter.note(
            f"everyone who reaches {manner.host} can use the model: there is no password"
        )
    return Ready(server, served)


def _served(
    resolved: Resolved, adapter: Path | None, manner: Manner, reporter: Reporter
) -> Served:
    loaded = assemble.model(resolved.config, reporter, adapter)
    model = assemble.adapted(loaded, adapter).model
    known = _applied(loaded, adapter, reporter)
    return Served(
        loaded.source,
        model,
        loaded.tokenizer,
        known,
        load.context_length(loaded.path),
        _switches(loaded, thinking=manner.thinking),
        manner.max_tokens,
        manner.temperature,
        manner.origins,
    )


def _switches(loaded: LoadedModel, *, thinking: bool) -> dict[str, bool]:
    """The position of the template's switches, which is off as in training."""
    if not loaded.tokenizer.has_chat_template:
        return {}
    template = templates.Template(loaded.tokenizer)
    templates.check_switch(template, thinking=thinking)
    return dict.fromkeys(template.switches, thinking)


def _applied(
    loaded: LoadedModel, adapter: Path | None, reporter: Reporter
) -> dict[str, Any] | None:
    """What the adapter is, and proof that the model answers otherwise with it."""
    if adapter is None:
        return None
    record: dict[str, Any] = {"path": str(adapter)}
    if not fitted.places(loaded.model):
        return record | {"largest_logit_change": None}
    change = Strength(loaded.model).change(mx.arange(PROBE)[None])
    if not change:
        reporter.note(f"the adapter {adapter} changes nothing; was it trained?")
    return record | {"largest_logit_change": change}
