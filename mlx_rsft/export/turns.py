"""A chat template as plain turns: what stands before and after each message.

Found by rendering conversations of marked words, and believed only if the turns give
back what the chat template gives on other conversations. A template that does more,
dates or rewriting or prompts inside, is refused: a model that is asked in other words
than it was trained with answers worse, and nobody sees why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_rsft.errors import ConfigError
from mlx_rsft.export import go_template

USER, ANSWER, AGAIN, SYSTEM = "quokka", "wombat", "numbat", "dingo"
OWN, FIRST, LAST, NONE = "own turn", "first user turn", "last user turn", "nowhere"
MARKS: Mapping[str, str] = {
    "<|im_start|>": "ChatML",
    "<|start_header_id|>": "Llama 3",
    "<start_of_turn>": "Gemma",
    "[INST]": "Mistral",
    "<|end|>": "Phi 3",
    "<|assistant|>": "Zephyr",
}
UNTOLD = "{{"
QUOTES = '"""'


@dataclass(frozen=True, slots=True)
class Turns:
    """The texts around messages.

    Attributes:
        intro: What stands first where no system message does.
        user: Before and after a user's message.
        answer: Before and after an answer.
        ask: What asks for the next answer.
        system: Before and after the system message, where ``place`` says.
        place: ``OWN``, ``FIRST``, ``LAST`` or ``NONE``.
    """

    intro: str
    user: tuple[str, str]
    answer: tuple[str, str]
    ask: str
    system: tuple[str, str]
    place: str

    @property
    def family(self) -> str:
        """What this kind of template is called; empty if it has no name here."""
        text = "".join((*self.user, *self.answer, self.ask))
        return next((name for mark, name in MARKS.items() if mark in text), "")

    def as_go(self) -> str:
        """The template in Go's words, as Ollama wants it."""
        before, after = self.system
        own, inside = "", ""
        if self.place == OWN:
            own = (
                '{{ if eq $m.Role "system" }}'
                f"{before}{{{{ $m.Content }}}}{after}{{{{ else }}}}"
            )
        elif self.place == FIRST:
            where = "and (eq $i 1) $.System"
            inside = f"{{{{ if {where} }}}}{{{{ $.System }}}}{after}{{{{ end }}}}"
        elif self.place == LAST:
            where = "and (eq (len (slice $.Messages $i)) 1) $.System"
            inside = f"{{{{ if {where} }}}}{{{{ $.System }}}}{after}{{{{ end }}}}"
        intro = f"{{{{ if not .System }}}}{self.intro}{{{{ end }}}}"
        intro = intro if self.intro and self.place == OWN else self.intro
        return (
            f"{intro}{{{{ {go_template.RANGE} }}}}{own}"
            f'{{{{ if eq $m.Role "user" }}}}{self.user[0]}{inside}{{{{ $m.Content }}}}'
            f'{self.user[1]}{{{{ else if eq $m.Role "assistant" }}}}{self.answer[0]}'
            f"{{{{ $m.Content }}}}{self.answer[1]}{{{{ end }}}}"
            f"{'{{ end }}' if own else ''}{{{{ end }}}}{self.ask}"
        )


class Renderer:
    """The chat template, without the BOS token where the tokenizer adds it anyway."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        plain = list(tokenizer.encode("a"))
        adds = bool(plain) and plain[0] == getattr(tokenizer, "bos_token_id", None)
        self._bos = str(tokenizer.bos_token) if adds else ""

    def __call__(self, messages: Sequence[dict[str, str]], *, ask: bool = True) -> str:
        text = self._tokenizer.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=ask,
            enable_thinking=False,
        )
        return str(text).removeprefix(self._bos)


def said(**words: str) -> list[dict[str, str]]:
    """Messages from ``role=content``, a digit behind the role told apart."""
    return [{"role": k.rstrip("12"), "content": v} for k, v in words.items()]


def find(tokenizer: Any) -> Turns:
    """The turns of a tokenizer's chat template.

    Raises:
        ConfigError: If it is none of turns alone.
    """
    try:
        render = Renderer(tokenizer)
        found = _derived(render)
        problem = _wrong(found, render)
    except (ValueError, IndexError) as reason:
        problem, found = str(reason), None
    if problem or found is None:
        raise ConfigError(
            f"The chat template cannot be written for Ollama: {problem}.",
            where="--to ollama",
            hint="Pass --to gguf-merged, which carries the template as it is; "
            "llama.cpp and LM Studio read it.",
        )
    return found


def _derived(render: Renderer) -> Turns:
    bare = render(said(user=USER), ask=False)
    asked = render(said(user=USER))
    ended = render(said(user=USER, assistant=ANSWER), ask=False)
    long = render(said(user1=USER, assistant=ANSWER, user2=AGAIN))
    before, after_user = _around(bare, USER)
    _, after_answer = _around(ended, ANSWER)
    ask = _after(_around(asked, USER)[1], after_user)
    to_answer = _after(_between(long, USER, ANSWER), after_user)
    before_user = _after(_between(long, ANSWER, AGAIN), after_answer)
    if not before.endswith(before_user):
        # What only stands between turns ends the earlier one.
        after_answer, before_user = after_answer + before_user, ""
    intro = before[: len(before) - len(before_user)]
    user, answer = (before_user, after_user), (to_answer, after_answer)
    system, place = _system(render, before_user)
    return Turns(intro, user, answer, ask, system, place)


def _system(render: Renderer, before_user: str) -> tuple[tuple[str, str], str]:
    """What is around a system message, and where it stands."""
    from jinja2 import TemplateError

    talk = said(system=SYSTEM, user1=USER, assistant=ANSWER, user2=AGAIN)
    try:
        text = render(talk)
    except (TemplateError, ValueError):
        return ("", ""), NONE
    if SYSTEM not in text:
        return ("", ""), NONE
    if text.index(SYSTEM) > text.index(USER):
        return ("", _between(text, SYSTEM, AGAIN)), LAST
    start = text[: text.index(SYSTEM)]
    between = _between(text, SYSTEM, USER)
    if before_user and between.endswith(before_user):
        return (start, between[: len(between) - len(before_user)]), OWN
    return ("", between), FIRST


def _wrong(turns: Turns, render: Renderer) -> str:
    """Where the turns give something else than the template; empty if nowhere."""
    pieces = (turns.intro, *turns.user, *turns.answer, turns.ask, *turns.system)
    if any(UNTOLD in piece or QUOTES in piece for piece in pieces):
        return "it writes what a Modelfile cannot quote"
    talks = [
        said(user="How hot?"),
        said(user1="One\ntwo", assistant="Three, four.", user2="Five"),
        said(user1="a", assistant1="b", user2="c", assistant2="d", user="e"),
    ]
    if turns.place != NONE:
        talks += [[*said(system="Be brief."), *talk] for talk in talks]
    go = turns.as_go()
    for talk in talks:
        wanted, found = render(talk), go_template.render(go, talk)
        if wanted != found:
            return f"it writes {wanted!r} where plain turns give {found!r}"
    return ""


def _around(text: str, word: str) -> tuple[str, str]:
    if text.count(word) != 1:
        raise ValueError(f"it writes a message {text.count(word)} times")
    before, _, after = text.partition(word)
    return before, after


def _between(text: str, first: str, second: str) -> str:
    return _around(_around(text, first)[1], second)[0]


def _after(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError(f"a turn ends in {start!r}, but not where another follows")
    return text.removeprefix(start)
