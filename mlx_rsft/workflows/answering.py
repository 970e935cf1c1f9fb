"""Let a model answer a file of questions; stopped, the same command goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_rsft import config as configuration
from mlx_rsft import files, manifest
from mlx_rsft.config import Resolved
from mlx_rsft.data import questions, templates
from mlx_rsft.data.conversation import Conversation
from mlx_rsft.errors import (
    ConfigError,
    DataError,
    Interrupted,
    ModelError,
    RsftError,
    raise_together,
)
from mlx_rsft.evaluation import generate as generation
from mlx_rsft.evaluation.generate import BATCH_ROWS, Answer
from mlx_rsft.models import load
from mlx_rsft.models.load import LoadedModel
from mlx_rsft.workflows import assemble, rendering
from mlx_rsft.workflows.reporter import Reporter

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """Which file is answered into which, and how."""

    asked: Path
    out: Path
    temperature: float = 0.0
    thinking: bool = False

    @property
    def part(self) -> Path:
        """Where answers are kept until all are there."""
        return self.out.with_name(f"{self.out.name}.part")


def answer_file(
    resolved: Resolved, adapter: Path | None, job: Job, reporter: Reporter
) -> dict[str, Any]:
    """Answer every row of a file.

    Returns:
        ``{"model", "adapter", "in", "out", "rows", "tokens", "cut"}``; ``cut`` counts
        answers that reached the longest length.

    Raises:
        Interrupted: If stopped; what was answered is kept for the next time.
        RsftError: Whatever is wrong with settings, rows, model or adapter.
    """
    config = resolved.config
    configuration.require(config, "model.source")
    if job.out.exists():
        raise ConfigError(
            "The file is there already.",
            where=str(job.out),
            hint="Name another with --out, or remove it.",
        )
    rows = questions.read(job.asked, *rendering.reading(config))
    loaded = assemble.model(config, reporter, adapter)
    assemble.adapted(loaded, adapter)
    prompts = _prompts(rows, loaded, job)
    key = _key(resolved, adapter, loaded, job)
    answered = _kept(job.part, key)
    if answered:
        reporter.note(f"going on behind the {len(answered)} answers in {job.part}")
    try:
        _answer(rows, prompts, answered, resolved, loaded, job, reporter)
    except KeyboardInterrupt:
        kept = f"{len(answered)} of {len(rows)} answers are kept in {job.part}"
        raise Interrupted(f"{kept}; the same command goes on.") from None
    files.write_text(job.out, "".join(map(_line, answered)))
    job.part.unlink()
    return {
        "model": config.model.source,
        "adapter": str(adapter) if adapter else None,
        "in": str(job.asked),
        "out": str(job.out),
        "rows": len(answered),
        "tokens": sum(row["tokens"] for row in answered),
        "cut": sum(row["finish_reason"] == "length" for row in answered),
    }


def _prompts(
    rows: Sequence[Conversation], loaded: LoadedModel, job: Job
) -> list[list[int]]:
    """Every row as the model meets it; raises with all rows that it cannot take."""
    most = load.context_length(loaded.path)
    found: list[list[int]] = []
    problems: list[RsftError] = []
    for row in rows:
        try:
            tokens = _tokens(row, loaded.tokenizer, thinking=job.thinking)
        except ConfigError as problem:
            if problem.where:  # a flag is wrong, and so for every row
                raise
            problems.append(DataError(problem.message, where=row.where))
            continue
        try:
            load.room(most, len(tokens), 1)
        except ModelError as problem:
            problems.append(DataError(problem.message, where=row.where))
        found.append(tokens)
    raise_together(problems)
    return found


def _tokens(row: Conversation, tokenizer: Any, *, thinking: bool) -> list[int]:
    if not row.messages:
        return tokenizer.encode(row.text)
    if not tokenizer.has_chat_template:
        raise ConfigError(
            "The model has no chat template, so it takes no turns.",
            where="data.template",
            hint=f'Name one with --template ({templates.CHOICES}), or write {{"text": '
            "...} to be continued.",
        )
    messages = [message.as_template() for message in row.messages]
    return templates.conversation(tokenizer, messages, row.tools, thinking=thinking)


def _answer(
    rows: Sequence[Conversation],
    prompts: Sequence[Sequence[int]],
    answered: Rows,
    resolved: Resolved,
    loaded: LoadedModel,
    job: Job,
    reporter: Reporter,
) -> None:
    """Add what is missing, each group kept on disk before the next begins."""
    config = resolved.config
    with reporter.task("answer", len(rows)) as advance, job.part.open("a") as part:
        advance(len(answered))
        for begin in range(len(answered), len(rows), BATCH_ROWS):
            group = slice(begin, begin + BATCH_ROWS)
            written = generation.at_once(
                loaded.model,
                loaded.tokenizer,
                prompts[group],
                config.evaluation.max_tokens,
                temperature=job.temperature,
                seed=config.seed << 32 | begin,
            )
            made = list(map(_record, rows[group], written))
            part.write("".join(map(_line, made)))
            part.flush()
            os.fsync(part.fileno())
            answered += made
            advance(len(made))


def _record(row: Conversation, answer: Answer) -> dict[str, Any]:
    asked = [message.as_template() for message in row.messages]
    return {
        "where": row.where,
        **({"id": row.id} if row.id else {}),
        **({"tags": list(row.tags)} if row.tags else {}),
        **({"messages": asked} if asked else {"text": row.text}),
        "answer": answer.text,
        "finish_reason": "stop" if answer.ended else "length",
        "tokens": answer.tokens,
    }


def _line(record: Any) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _key(
    resolved: Resolved, adapter: Path | None, loaded: LoadedModel, job: Job
) -> str:
    """A hash of everything that decides the answers."""
    config = resolved.config
    weights = sorted(loaded.path.glob("*.safetensors"))
    stamps = [(path.name, *files.stamp(path)) for path in weights]
    tuned = sorted(adapter.glob("adapter*")) if adapter else []
    known = [
        manifest.versions(),
        load.tokenizer_identity(loaded.path),
        str(loaded.tokenizer.chat_template),
        stamps,
        [files.sha256(path) for path in (job.asked, *tuned)],
        [asdict(config.model), asdict(config.data), config.seed],
        [config.evaluation.max_tokens, job.temperature, job.thinking],
    ]
    return manifest.text_sha256(json.dumps(known))


def _kept(part: Path, key: str) -> Rows:
    """The answers of a run that was stopped, in whole groups; else a file begun anew."""
    lines = part.read_text(encoding="utf-8").splitlines() if part.exists() else []
    head = _line({"answers_of": key})
    kept = lines[1:] if lines[:1] == [head.strip()] else []
    whole = kept[: len(kept) // BATCH_ROWS * BATCH_ROWS]
    files.write_text(part, "".join([head, *(f"{line}\n" for line in whole)]))
    return [json.loads(line) for line in whole]
