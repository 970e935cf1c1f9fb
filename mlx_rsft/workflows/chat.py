"""Talk to a model, turn by turn, with its adapter on, off or in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data import templates
from mlx_rsft.errors import ConfigError, ModelError, nearest
from mlx_rsft.evaluation import generate as generation
from mlx_rsft.models import load
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.models.strength import Strength
from mlx_rsft.workflows import assemble
from mlx_rsft.workflows.reporter import Reporter

COMMANDS = {
    "/adapter": "/adapter off, /adapter on: answer with the bare model, or with it",
    "/weight": "/weight 0.5: the adapter at half its strength; 1 is as trained",
    "/reset": "forget the conversation, keep the system prompt",
    "/help": "this list",
    "/quit": "leave, as Ctrl-D does; Ctrl-C stops an answer, or leaves between two",
}


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers are made.

    Attributes:
        system: What the model is told before everything else; empty for nothing.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    thinking: bool = False
    system: str = ""


class Chat:
    """A conversation with one model.

    Attributes:
        messages: What was said so far, as templates take it.
        over: Whether the user wants to leave.
    """

    def __init__(
        self, loaded: LoadedModel, manner: Manner, seed: int, *, has_adapter: bool
    ) -> None:
        self._loaded = loaded
        self._manner = manner
        self._seed = seed
        self._has_adapter = has_adapter
        self._dial: Strength | None = None
        self._on = 1.0
        self._context = load.context_length(loaded.path)
        self._do: dict[str, Callable[[str], str]] = {
            "/adapter": self._adapter,
            "/weight": self._weight,
            "/reset": self._reset,
            "/help": lambda _: "\n".join(f"{k:9} {v}" for k, v in COMMANDS.items()),
            "/quit": self._quit,
        }
        self.over = False
        self.messages: list[dict[str, str]] = []
        self._reset("")

    def say(self, text: str) -> Iterator[str]:
        """The answer, in pieces as they come; what came stays in the conversation.

        Also when the caller stops it half-way. A question without any answer is
        forgotten.

        Raises:
            ConfigError: If the template refuses the conversation, or it is too long.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        tokens = templates.conversation(
            self._loaded.tokenizer, asked, thinking=self._manner.thinking
        )
        pieces = generation.stream(
            self._loaded.model,
            self._loaded.tokenizer,
            tokens,
            max_tokens=self._room(len(tokens)),
            temperature=self._manner.temperature,
            seed=self._seed + len(asked),
        )
        return self._kept(pieces, asked)

    def _kept(
        self, pieces: Iterator[str], asked: list[dict[str, str]]
    ) -> Iterator[str]:
        said = ""
        try:
            for piece in pieces:
                said += piece
                yield piece
        finally:
            if said.strip():
                self.messages = [*asked, {"role": "assistant", "content": said}]

    def _room(self, length: int) -> int:
        """Tokens that an answer may have behind a prompt of this length."""
        try:
            return load.room(self._context, length, self._manner.max_tokens)
        except ModelError as problem:
            hint = "Forget the conversation with /reset."
            raise ConfigError(problem.message, hint=hint) from None

    def command(self, line: str) -> str:
        """Do what a line with a slash says; returns what to tell the user.

        Raises:
            ConfigError: If there is no such command, or it cannot be done.
        """
        name, _, rest = line.partition(" ")
        if name not in self._do:
            raise ConfigError(f"There is no {name}.", hint=nearest(name, COMMANDS))
        return self._do[name](rest.strip())

    def _adapter(self, wanted: str) -> str:
        dial = self._turned()
        if wanted == "off":
            dial.set(0)
        elif wanted == "on":
            dial.set(self._on)
        elif wanted:
            raise ConfigError(f"{wanted!r} is neither on nor off.")
        return self._standing(dial)

    def _weight(self, wanted: str) -> str:
        dial = self._turned()
        try:
            weight = float(wanted)
        except ValueError:
            raise ConfigError(
                f"{wanted!r} is no number.", hint="Write it like /weight 0.5."
            ) from None
        dial.set(weight)
        self._on = weight or self._on
        return self._standing(dial)

    def _turned(self) -> Strength:
        if not self._has_adapter:
            raise ConfigError("There is no adapter.", hint="Start with --adapter DIR.")
        self._dial = self._dial or Strength(self._loaded.model)
        return self._dial

    def _standing(self, dial: Strength) -> str:
        return f"adapter on, weight {dial.weight:g}" if dial.weight else "adapter off"

    def _reset(self, _: str) -> str:
        told = self._manner.system
        self.messages = [{"role": "system", "content": told}] if told else []
        return "forgotten"

    def _quit(self, _: str) -> str:
        self.over = True
        return ""


def chat(
    resolved: Resolved, adapter: Path | None, manner: Manner, reporter: Reporter
) -> Chat:
    """Load what is talked to.

    Raises:
        RsftError: Whatever is wrong with settings, model or adapter.
    """
    config = resolved.config
    configuration.require(config, "model.source")
    loaded = assemble.model(config, reporter, adapter)
    tokenizer: Any = loaded.tokenizer
    if not tokenizer.has_chat_template:
        raise ConfigError(
            "The model has no chat template, so it takes no turns.",
            where=config.model.source,
            hint=f"Name one with --template ({templates.CHOICES}), or use "
            "mlx-rsft generate, which continues a text.",
        )
    templates.check_switch(templates.Template(tokenizer), thinking=manner.thinking)
    assemble.adapted(loaded, adapter)
    return Chat(loaded, manner, config.seed, has_adapter=adapter is not None)
