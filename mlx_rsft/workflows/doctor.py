"""What is wrong with this machine or a model, and what to do about it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import checkup, files, hub, machine
from mlx_rsft.checkup import Finding
from mlx_rsft.errors import MachineError, RsftError


@dataclass(frozen=True, slots=True)
class Examination:
    """Everything that was looked at."""

    findings: Sequence[Finding]

    @property
    def problems(self) -> int:
        return sum(finding.level == "problem" for finding in self.findings)

    def as_record(self) -> dict[str, Any]:
        return {
            "fine": not self.problems,
            "findings": [finding.as_record() for finding in self.findings],
        }


def examine(model: str = "", *, online: bool = False) -> Examination:
    """Look at this machine, and at a model if one is named.

    Args:
        model: As ``--model`` takes it; one of the Hub is looked at only if it is on this
            disk already.
        online: Whether to try if the Hub can be reached; else nobody is asked.
    """
    found = [
        checkup.python(
            platform.system(), platform.machine(), platform.python_version()
        ),
        *_device(),
        *checkup.versions(checkup.installed()),
        *_hub(online=online),
        checkup.folder("own cache", files.cache_folder()),
    ]
    return Examination([*found, *(_model(model) if model else [])])


def _device() -> list[Finding]:
    try:
        return checkup.device(machine.device())
    except MachineError as problem:
        return [Finding("problem", "backend", problem.message, problem.hint)]


def _hub(*, online: bool) -> list[Finding]:
    state = hub.state()
    switch = "switched off by HF_HUB_OFFLINE" if state.offline else "not switched off"
    found = [
        Finding("fine", "Hub", f"{state.endpoint}, {switch}"),
        checkup.folder("Hub cache", state.cache),
    ]
    if not online:
        return found
    reason = hub.unreachable(state.endpoint)
    if not reason:
        return [*found, Finding("fine", "Hub online", "it answers")]
    return [
        *found,
        Finding(
            "problem",
            "Hub online",
            f"{state.endpoint} does not answer: {reason}.",
            "Check the network and HTTPS_PROXY. Without it: export HF_HUB_OFFLINE=1, "
            "and models from a folder or the cache.",
        ),
    ]


def _model(name: str) -> list[Finding]:
    from mlx_rsft.models import source, traps

    try:
        if source.HUB_ID.fullmatch(name) and not Path(name).exists():
            folder = hub.cached(name)
            if folder is None:
                told = f"{name} is not on this disk, and doctor fetches nothing."
                return [Finding("note", "model", told, f"hf download {name}")]
        else:
            folder = source.as_folder(name)
        return [
            Finding("fine", "model", str(folder)),
            *traps.look(folder),
            *_turns(folder),
        ]
    except RsftError as problem:
        told = f"{problem.where}: {problem.message}"
        return [Finding("problem", "model", told, problem.hint)]


def _turns(folder: Path) -> list[Finding]:
    """Whether the template and the end-of-turn tokens go together."""
    from mlx_rsft.data.conversation import Conversation, Message
    from mlx_rsft.data.render import render
    from mlx_rsft.models import load
    from mlx_rsft.settings import ModelSettings

    if not any(folder.glob("tokenizer*")):
        return []
    tokenizer = load.tokenizer(ModelSettings(source=str(folder)))
    if not tokenizer.has_chat_template:
        return [
            Finding(
                "note",
                "chat template",
                "There is none: a base model, which takes no turns.",
                "Pass --template plain, or a .jinja file, to train, eval, generate, "
                "chat and serve alike; or take its instruction-tuned variant.",
            )
        ]
    ends = {tokenizer.decode([token]): token for token in tokenizer.eos_token_ids}
    told = ", ".join(f"{text} ({token})" for text, token in ends.items())
    turns = (Message("user", "a"), Message("assistant", "b"))
    try:
        (example,) = render(Conversation(turns, "template"), tokenizer)
    except RsftError as problem:
        message = f"{problem.message} Tokens that end a turn: {told or 'none'}."
        return [Finding("problem", "end of turn", message, problem.hint)]
    (_, stop) = example.spans[-1]
    return [_end(example.tokens[stop - 1], load.end_tokens(folder), told)]


def _end(token: int, named: Sequence[int], told: str) -> Finding:
    """Programs other than mlx-lm heed only the end tokens of the configuration."""
    if token in named:
        return Finding("fine", "end of turn", told)
    return Finding(
        "note",
        "end of turn",
        f"The template ends a reply with token {token}, which the tokenizer names and "
        f"the model's configuration does not ({list(named)}): other programs may not "
        "stop there.",
        f'In generation_config.json: "eos_token_id": {[*named, token]}',
    )
