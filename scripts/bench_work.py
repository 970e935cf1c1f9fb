"""What the trainers are compared on: scenarios, and the models and rows they ask for.

Both sides read one model folder in float32 and one data folder. The chat template in
that folder counts the head of the answer to the prompt and writes nothing behind the
answer's end, so that every side cuts a row into the same tokens and learns the same ones.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_rsft import files, testing  # before mlx.core: puts a fast BLAS under it
from mlx_rsft.models import load
from mlx_rsft.settings import ModelSettings

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

AROUND_PROMPT = {
    "demo": ("<|im_start|>user\\n", "<|im_end|>\\n<|im_start|>assistant\\n"),
    "demo-gemma": (
        "<start_of_turn>user\\n",
        "<end_of_turn>\\n<start_of_turn>model\\n",
    ),
    "tiny": ("<|start|>", "<|start|>"),
}
"""What stands before and behind a prompt; special tokens keep the cuts where they are."""
TINY = {"hidden_size": 48, "intermediate_size": 96}
TEMPLATE = (
    "BEGIN{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'BEFORE' + message['content'] + 'BEHIND' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "generation_config.json")
FORMAT = "2"
HELD_OUT = 64


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of work.

    Attributes:
        about: What it is, for the head of its table.
        rows: To train on; whole batches, because the peers drop a broken one.
        prompt: Tokens that are not learned; 0 makes plain texts, learned throughout.
        answer: Tokens that are learned.
        epochs: Passes over the rows.
        layers: Blocks that are trained, from the top; -1: all.
        speed: What is aimed at: tokens per second over the peer's, at least.
        memory: Peak memory of mlx over the peer's, at most.
        sigma: Of log-normal prompt lengths with median ``prompt``.
        longest: Prompts are no longer than that.
        checkpoint: With gradient checkpointing.
        arms: Objectives to train one after the other; none: one run.
        short: What is otherwise in the short form.
    """

    about: str
    rows: int
    prompt: int
    answer: int
    epochs: int
    layers: int
    speed: float
    memory: float
    model: str = "demo"
    batch_size: int = 8
    sigma: float = 0.0
    longest: int = 512
    checkpoint: bool = False
    arms: tuple[str, ...] = ()
    held_out_answer: int = 0
    held_out: int = HELD_OUT
    short: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def updates(self) -> int:
        return self.rows // self.batch_size * self.epochs

    def as_short(self) -> Scenario:
        """The same kind of work on a tiny model, for a test."""
        layers = -1 if self.layers == -1 else 1
        common = {"model": "tiny", "rows": 8, "batch_size": 4, "held_out": 8}
        return replace(self, layers=layers, **(common | self.short))


FEW: dict[str, Any] = {"prompt": 40, "answer": 8, "epochs": 2}
SCENARIOS: dict[str, Scenario] = {
    "a": Scenario(
        "long prompts, short answers, last 8 blocks",
        rows=16,
        prompt=150,
        answer=15,
        epochs=3,
        layers=8,
        speed=6.0,
        memory=0.40,
        short=FEW,
    ),
    "b": Scenario(
        "every position learned, all blocks",
        rows=32,
        prompt=0,
        answer=126,
        epochs=1,
        layers=-1,
        speed=1.3,
        memory=0.60,
        short={"answer": 40},
    ),
    "c": Scenario(
        "Gemma 3 270M with 262,144 tokens, long prompts, last 8 blocks",
        rows=16,
        prompt=50,
        answer=5,
        epochs=3,
        layers=8,
        speed=4.0,
        memory=0.25,
        model="demo-gemma",
        short=FEW,
    ),
    "d": Scenario(
        "heavy-tailed lengths, prompts not learned, last 8 blocks",
        rows=24,
        prompt=60,
        answer=10,
        epochs=3,
        layers=8,
        speed=3.0,
        memory=0.50,
        sigma=1.0,
        short=FEW,
    ),
    "e": Scenario(
        "texts of 2,048 tokens, all blocks, gradient checkpointing",
        rows=4,
        prompt=0,
        answer=2047,
        epochs=1,
        layers=-1,
        speed=1.2,
        memory=0.60,
        batch_size=2,
        checkpoint=True,
        held_out_answer=126,
        short={"rows": 4, "batch_size": 2, "answer": 200, "held_out_answer": 40},
    ),
    "f": Scenario(
        "four objectives on the same rows, last 8 blocks, loading included",
        rows=16,
        prompt=150,
        answer=15,
        epochs=3,
        layers=8,
        speed=8.0,
        memory=0.50,
        short=FEW,
        arms=("sft", "dft", "dft:floor=0.1", "power:alpha=0.5"),
    ),
}

PARTS = ("spindle", "pump", "belt", "gearbox", "valve", "motor", "gripper", "sensor")
FAULTS = {
    "leaks oil": "replace the seal",
    "runs hot": "clean the filter",
    "is noisy": "grease the bearing",
    "jams often": "align the guide",
    "shows no signal": "check the cable",
    "vibrates": "balance the shaft",
}


def model_folder(name: str, scratch: Path) -> Path:
    """The model as a float32 folder that every side can load; kept in the cache."""
    if name == "tiny":
        folder = testing.write_tiny_model(scratch / "model", **TINY)
        _put_template(folder, load.tokenizer(ModelSettings(source=str(folder))), name)
        return folder
    folder = files.cache_folder() / "bench" / f"{name}-float32-{FORMAT}"
    with files.alone(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            _write_dense(name, folder)
    return folder


def _write_dense(name: str, folder: Path) -> None:
    loaded = load.load(ModelSettings(source=name, precision="float32"))
    config = json.loads((loaded.path / "config.json").read_text(encoding="utf-8"))
    for key in ("quantization", "quantization_config"):
        config.pop(key, None)
    weights: list[tuple[str, mx.array]] = tree_flatten(loaded.model.parameters())  # pyright: ignore
    with files.new_folder(folder) as made:
        target = str(made / "model.safetensors")
        mx.save_safetensors(target, dict(weights), {"format": "mlx"})
        files.write_json(made / "config.json", config)
        for kind in TOKENIZER_FILES:
            for path in loaded.path.glob(kind):
                shutil.copy(path, made)
        _put_template(made, loaded.tokenizer, name)


def _put_template(folder: Path, tokenizer: Any, name: str) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("chat_template", None)
    files.write_json(path, settings)
    begins = tokenizer.encode("a", add_special_tokens=True)[0]
    begin = "{{ bos_token }}" if begins == tokenizer.bos_token_id else ""
    before, behind = AROUND_PROMPT[name]
    text = TEMPLATE.replace("BEGIN", begin)
    text = text.replace("BEFORE", before).replace("BEHIND", behind)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


def write_rows(scenario: Scenario, tokenizer: Any, folder: Path) -> None:
    """``train.jsonl`` and ``test.jsonl``, the same whenever they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    held_out = replace(
        scenario,
        rows=scenario.held_out,
        answer=scenario.held_out_answer or scenario.answer,
    )
    for seed, (name, work) in enumerate({"train": scenario, "test": held_out}.items()):
        lines = [json.dumps(row) + "\n" for row in _rows(work, tokenizer, seed)]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _rows(scenario: Scenario, tokenizer: Any, seed: int) -> Iterator[dict[str, str]]:
    random = np.random.default_rng(seed)
    for _ in range(scenario.rows):
        drawn = scenario.prompt * np.exp(random.normal(0, scenario.sigma))
        length = int(np.clip(drawn, 8, scenario.longest))
        while True:  # until a note can be cut to these lengths
            note, answer = _note(random, max(length, scenario.answer))
            learned = answer if scenario.prompt else note
            asked = _cut(tokenizer, note, length)
            learned = _cut(tokenizer, learned, scenario.answer)
            if asked and learned:
                break
        if scenario.prompt:
            yield {"prompt": asked, "completion": learned}
        else:
            yield {"text": learned}


def _note(random: np.random.Generator, length: int) -> tuple[str, str]:
    """A note of more than ``length`` tokens, and what to do about all it names."""
    notes: list[str] = []
    answers: list[str] = []
    for _ in range(length // 6 + 2):
        part = random.choice(PARTS)
        fault, action = list(FAULTS.items())[random.integers(len(FAULTS))]
        bay, shift = random.integers(1, 10, 2)
        notes.append(f"the {part} in bay {bay} {fault} since shift {shift}.")
        answers.append(f"{part} {fault}: {action}.")
    return " ".join(notes), " ".join(answers)


def _cut(tokenizer: Any, text: str, length: int) -> str:
    """The beginning of a text that is ``length`` tokens; empty if that cannot be cut."""
    tokens = tokenizer.encode(text, add_special_tokens=False)[:length]
    cut = tokenizer.decode(tokens)
    same = tokenizer.encode(cut, add_special_tokens=False) == tokens
    return cut if same and cut == cut.strip() else ""
