"""Questions that come with the package, the same for every model and run."""

from __future__ import annotations

from pathlib import Path

from mlx_rsft.data import formats, render
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.tokenizing import ChatTokenizer


def examples(file: Path, tokenizer: ChatTokenizer) -> list[Example]:
    """The questions of a bundled file as tokens of a model, with their tags.

    Raises:
        ModelError: If the model has no chat template.
    """
    return [
        example
        for row in formats.read_conversations(file)
        for example in render.render(row, tokenizer, render.LAST)
    ]
