"""The model card in an exported folder: what it is, how it was made and how it did.

It sums the data up and never quotes it, and names no path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_rsft.export import merging
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Product
from mlx_rsft.models import gguf_file

UNKNOWN = "unknown: check"
SIDE_EFFECTS = ("drift", "rise", "retention", "choices")
"""Beginnings of the names of metrics that say what was moved beside the task."""


@dataclass(frozen=True, slots=True)
class Story:
    """What a run wrote of itself; empty for an adapter that came without a run.

    Attributes:
        manifest: ``manifest.json``.
        metrics: Lines of ``evals.jsonl``.
    """

    manifest: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]


class _Kind:
    """How a target is described: library, relation to its base, how to use it."""

    def __init__(self, library: str, relation: str, *use: str) -> None:
        self.library = library
        self.relation = relation
        self.use = use


KINDS: dict[str, _Kind] = {
    "mlx": _Kind(
        "mlx",
        "adapter",
        "pip install mlx-lm",
        "mlx_lm.generate --model {base} --adapter-path . --prompt 'Hello'",
        "mlx_lm.server --model {base} --adapter-path .",
    ),
    "peft": _Kind(
        "peft",
        "adapter",
        "from peft import AutoPeftModelForCausalLM",
        "model = AutoPeftModelForCausalLM.from_pretrained('.')",
        "# or: vllm serve {base} --enable-lora --lora-modules tuned=.",
    ),
    "gguf": _Kind(
        "gguf",
        "adapter",
        "# BASE.gguf is {base} as a GGUF file",
        "llama-cli -m BASE.gguf --lora {file} -p 'Hello'",
        "llama-server -m BASE.gguf --lora {file}",
    ),
    "fused": _Kind(
        "mlx",
        "finetune",
        "pip install mlx-lm",
        "mlx_lm.generate --model . --prompt 'Hello'",
        "mlx_lm.server --model .",
    ),
    "lmstudio": _Kind(
        "mlx",
        "finetune",
        "# copy PUBLISHER/MODEL into ~/.lmstudio/models",
        "lms ls",
        "lms load {file}",
    ),
    "gguf-merged": _Kind(
        "gguf",
        "finetune",
        "llama-cli -m {file} -p 'Hello'",
        "llama-server -m {file}",
        "# or: lms import {file}",
    ),
    "ollama": _Kind(
        "gguf",
        "finetune",
        "ollama create tuned -f Modelfile",
        "ollama run tuned 'Hello'",
        "# Ollama itself was not run when this was written",
    ),
}


def text(
    live: Live, product: Product, story: Story, entries: Sequence[Mapping[str, Any]]
) -> str:
    """``README.md`` of one exported folder.

    Args:
        live: The adapter on its model.
        product: What was written.
        story: What the run wrote of itself.
        entries: What readers made of it, as in ``export.json``.
    """
    kind = KINDS[product.target]
    name = live.base_name
    use = "\n".join(kind.use).format(base=name, file=product.path.name)
    parts = [
        _front(live, kind),
        f"# {name.rpartition('/')[2]}, fine-tuned\n\n"
        f"Fine-tuned from `{name}` with mlx-rsft; the files are of the kind "
        f"`{product.target}`.\nLicence of the base model: {licence(live)}.",
        f"## Use\n\n```\n{use}\n```",
        _training(live, story),
        _data(story),
        _metrics(story),
        side_effects(story),
        _checks(product, entries),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def licence(live: Live) -> str:
    """The base model's, as its file or its model card names it."""
    if live.gguf:
        return gguf_file.read(live.gguf).get("general.license", UNKNOWN)
    card = live.path / "README.md"
    if not card.is_file():
        return UNKNOWN
    _, _, front = card.read_text(encoding="utf-8").partition("---\n")
    lines = front.partition("\n---")[0].splitlines()
    named = [line.partition(":")[2] for line in lines if line.startswith("license:")]
    return named[0].strip().strip("'\"") or UNKNOWN if named else UNKNOWN


def _front(live: Live, kind: _Kind) -> str:
    found = licence(live)
    tags = [kind.library, "mlx-rsft", *(["lora"] if kind.relation == "adapter" else [])]
    lines = [
        f"library_name: {kind.library}",
        f"base_model: {live.base_name}",
        f"base_model_relation: {kind.relation}",
        # The Hub takes only names it knows; a person has to look this one up.
        f"license: {found}" if found != UNKNOWN else f"# license: {UNKNOWN}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "---\n" + "\n".join(lines) + "\n---"


def _training(live: Live, story: Story) -> str:
    config = live.adapter_config
    held = config.get("lora_parameters", {})
    size = sum(value.size for value in merging.weights(live).values())
    facts = [
        f"tested at one size: {size / 1e6:,.1f} million parameters, "
        f"{len(getattr(live.model, 'layers', ()))} blocks",
        f"method: {config['fine_tune_type']}",
    ]
    if held:
        facts.append(f"rank {held['rank']}, scale {held['scale']:g}")
    if told := story.manifest:
        objective = ", ".join(f"{k} = {v}" for k, v in told["objective"].items())
        facts.append(f"objective: {objective}")
        result = told.get("result") or {}
        if "steps" in result:
            tokens = result.get("tokens", 0)
            facts.append(f"{result['steps']} steps, {tokens} supervised tokens seen")
        versions = ", ".join(f"{k} {v}" for k, v in told["versions"].items())
        facts += [f"seed {told['seed']}", f"versions: {versions}"]
    return "## Training\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _data(story: Story) -> str:
    splits = story.manifest.get("data", {}).get("splits", {})
    if not splits:
        return "## Data\n\nNot known: the adapter came without its run."
    rows = [
        f"| {name} | {split['rows']} | {split.get('supervised_tokens', UNKNOWN)} | "
        f"{', '.join(split['sha256'].values())} |"
        for name, split in splits.items()
    ]
    head = [
        "| split | rows | supervised tokens | SHA-256 of the files |",
        "|---|---|---|---|",
    ]
    return "## Data\n\nNot part of these files.\n\n" + "\n".join([*head, *rows])


def _metrics(story: Story) -> str:
    if not story.metrics:
        return "## Results\n\nNone were measured in the run."
    lines = [
        f"| {one['split']} | {one['metric']} | {one['value']:.4g} | "
        f"{one['low']:.4g} to {one['high']:.4g} | {one['unit']} | {one['n']} |"
        for one in story.metrics
        if one.get("value") is not None and one.get("low") is not None
    ]
    head = ["| split | metric | value | 95 % interval | unit | n |", "|" + "---|" * 6]
    return "## Results\n\n" + "\n".join([*head, *lines])


def side_effects(story: Story) -> str:
    """What changed beside the task, where the run looked for it."""
    found = story.manifest.get("effects")
    moved = any(str(o["metric"]).startswith(SIDE_EFFECTS) for o in story.metrics)
    if not found:
        return "" if moved else "Side effects beside the task were not measured."
    lines = [
        f"| {one['set']} | {one['metric']} | {_number(one['base'])} | "
        f"{_number(one['value'])} | {_number(one['low'])} to {_number(one['high'])} | "
        f"{one['unit']} | {one['n']} |"
        for one in found
    ]
    head = [
        "| set | metric | base | tuned | 95 % interval | unit | n |",
        "|" + "---|" * 7,
    ]
    about = (
        "What changed beside the task, on few bundled prompts: `general` questions, and "
        "`harmful` and `harmless` ones for refusals, which are told by words."
    )
    return "\n".join(["## Side effects", "", about, "", *head, *lines])


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "unknown"


def _checks(product: Product, entries: Sequence[Mapping[str, Any]]) -> str:
    lines: list[str] = []
    for entry in entries:
        if entry["judged"] is None:
            lines.append(f"- {entry['note']}")
        else:
            lines.append(f"- {entry['reader']}: {_figures(entry)}")
    lines += [f"- {note}" for note in product.notes]
    return "## Checks\n\n" + "\n".join(lines)


def _figures(entry: Mapping[str, Any]) -> str:
    names = ("max_difference", "mean_difference", "divergence")
    said = {name: entry[name] for name in names if entry[name] is not None}
    found = ", ".join(f"{name} {value:.2g}" for name, value in said.items())
    lost = "" if entry["lost"] is None else f"; {entry['lost']:.1%} of its effect lost"
    return (
        f"{found} {entry['unit']} from the adapter as it was trained{lost}; "
        f"{entry['judged']} of {entry['tolerance']:.2g} allowed"
    )


def folder(product: Product) -> Path:
    """Where the card of a product belongs."""
    return product.path if product.path.is_dir() else product.path.parent
