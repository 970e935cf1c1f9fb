"""The built-in Gemma: a vocabulary of 262,144 tokens, made anew from a model folder."""

import numpy as np

from mlx_rsft.export import gguf_words
from mlx_rsft.models import gguf_file, load
from mlx_rsft.models.gguf_vocabulary import NORMAL
from mlx_rsft.settings import ModelSettings

KEY = "tokenizer.ggml."
UNTOLD = {f"{KEY}add_sep_token"}
"""What a tokenizer's files do not hold, and llama.cpp takes for false."""


def test_the_vocabulary_made_from_a_folder_is_that_of_the_base_file(
    gemma_gguf, gemma_folder
):
    held = gguf_file.read(gemma_gguf).metadata
    tokenizer = load.tokenizer(ModelSettings(source=str(gemma_folder)))
    tokens = held[f"{KEY}tokens"]
    made = {k: f.value for k, f in gguf_words.fields(tokenizer, len(tokens)).items()}
    told = {key for key in held if key.startswith(KEY)} - UNTOLD
    assert told <= made.keys()
    apart = {key for key in told if made[key] != held[key]}
    assert apart == {f"{KEY}scores", f"{KEY}token_type"}

    kinds, ours = (np.array(made[f"{KEY}{name}"]) for name in ("token_type", "scores"))
    differ = np.flatnonzero(kinds != np.array(held[f"{KEY}token_type"]))
    assert [tokens[place] for place in differ] == [
        "<unk>"
    ]  # control there, unknown here

    # llama.cpp joins what scores highest, so it is their order that decides.
    joined = (kinds == NORMAL) & (ours > ours.min())
    theirs = np.array(held[f"{KEY}scores"])[joined]
    assert joined.sum() > 200_000
    assert (np.diff(theirs[np.argsort(-ours[joined])]) < 0).all()
