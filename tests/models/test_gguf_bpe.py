import json

import pytest
from transformers import AutoTokenizer

from mlx_rsft.models.gguf import convert
from mlx_rsft.models.gguf_bpe import WORDS


def encode_all(tokenizer, texts, *, special=False):
    return {text: tokenizer.encode(text, add_special_tokens=special) for text in texts}


@pytest.mark.parametrize("name", WORDS)
def test_each_rule_for_cutting_words_is_that_of_llama_cpp(
    tiny, tmp_path, llama_cpp, nasty_texts, name
):
    model = tiny()
    model.metadata["tokenizer.ggml.pre"] = name
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    texts = [*nasty_texts, "a <|user defined|>b", "zqj Zqj"]
    server = llama_cpp(path)
    # With what is put around a text: the file does not say whether BOS is.
    theirs = {text: server.ids(text, add_special=True) for text in texts}
    assert encode_all(tokenizer, texts, special=True) == theirs


def test_the_texts_tell_the_rules_apart(tiny, tmp_path, nasty_texts):
    ids = set()
    for name in ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "gpt-4o"):
        model = tiny()
        model.metadata["tokenizer.ggml.pre"] = name
        convert(model.write(tmp_path / name), tmp_path / "model", float_type="float32")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
        ids.add(json.dumps(encode_all(tokenizer, nasty_texts)))
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.pre", "smollm3", "pre-tokenizer 'smollm3' is unknown"),
        ("tokenizer.ggml.merges", ["a b c"], "'a b c' does not join two tokens"),
        ("tokenizer.ggml.merges", ["a ☃"], "'a ☃' does not join two tokens"),
    ],
)
def test_a_contradiction_is_refused(tiny, refusal, tmp_path, key, value, message):
    model = tiny()
    model.metadata[key] = value
    assert message in refusal(model.write(tmp_path / "m.gguf"))
