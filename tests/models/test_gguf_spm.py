import json
import random

import pytest
from mlx_lm import load
from transformers import AutoTokenizer

from mlx_rsft.models.gguf import convert

MORE = [
    "<0x0A><0x41> <0xFF>",
    "<bos><eos><start_of_turn>user\nhi<end_of_turn>\n<unused3><table></tr>",
    "e\u0301 n\u0303 \u0915\u094d\u0937 o\u0308\u0304",
    " " * 70 + "x" + " " * 33,
    "\n" * 70 + "\t" * 70,
    "\U00010348 \U000e0041 \ud7ff",
    "<table>  <table> x<table>\n\n<|im_end|> zqj",
    "word 7 " * 2000 + "z" * 5000,
]
ALPHABET = [
    *(" ", "  ", "\n", "\t", "\r", "\x00", "\ufeff", "\u2581", "\u200d", "\u0301"),
    *("<", "0x", "0", "A", ">", "</", "<table>", "<end_of", "_turn>", "<|im_end|>"),
    *("a", "b", "an", "the", "ing", "one", "1", "23", "'", "s", "!", "--"),
    *("é", "日", "本", "語", "🙂", "क", "्", "ष"),
]


@pytest.fixture(scope="module")
def many_texts(nasty_texts):
    """The nasty texts, longer and stranger ones, and 300 drawn at random."""
    rng = random.Random(0)
    drawn = ["".join(rng.choices(ALPHABET, k=rng.randint(1, 40))) for _ in range(300)]
    return [*nasty_texts, *MORE, *drawn]


@pytest.fixture(scope="module")
def gemma_tokenizer(gemma_folder):
    return AutoTokenizer.from_pretrained(gemma_folder)


def encode_all(tokenizer, texts, *, special=False):
    return {text: tokenizer.encode(text, add_special_tokens=special) for text in texts}


def test_token_ids_of_gemma_are_those_of_llama_cpp(
    gemma_tokenizer, gemma_llama_cpp, many_texts
):
    theirs = {text: gemma_llama_cpp.ids(text) for text in many_texts}
    assert encode_all(gemma_tokenizer, many_texts) == theirs


def test_decoding_with_gemma_gives_the_text_back(gemma_tokenizer, nasty_texts):
    texts = [*nasty_texts, *MORE]
    ids = encode_all(gemma_tokenizer, texts)
    assert [gemma_tokenizer.decode(ids[text]) for text in texts] == texts


@pytest.mark.parametrize("prefix", [True, False, None])
def test_the_file_decides_whether_a_space_is_put_before_a_text(
    tiny_scored, tmp_path, llama_cpp, many_texts, prefix
):
    model = tiny_scored()
    if prefix is not None:
        model.metadata["tokenizer.ggml.add_space_prefix"] = prefix
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    server = llama_cpp(path)
    theirs = {text: server.ids(text, add_special=True) for text in many_texts}
    assert encode_all(tokenizer, many_texts, special=True) == theirs
    assert theirs["Hello, world!"][0] == 2  # BOS, about which the file is silent
    decoded = tokenizer.decode(theirs["Hello, world!"], skip_special_tokens=True)
    assert decoded == "Hello, world!"


def test_the_end_of_a_turn_ends_an_answer_where_the_file_does_not_say_so(gemma_folder):
    text = (gemma_folder / "generation_config.json").read_text()
    assert json.loads(text)["eos_token_id"] == [1, 106]  # <eos>, <end_of_turn>


def test_text_that_streams_is_the_text_of_the_whole(tiny_scored, tmp_path):
    folder = tmp_path / "model"
    convert(tiny_scored().write(tmp_path / "m.gguf"), folder, float_type="float32")
    _, tokenizer = load(str(folder))
    text = "two  spaces, naïve 🙂\n\n日本 done"
    stream = tokenizer.detokenizer
    for token in tokenizer.encode(text, add_special_tokens=False):
        stream.add_token(token)
    stream.finalize()
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert stream.text == tokenizer.decode(ids)


def test_equal_scores_leave_the_order_open_and_are_refused(
    tiny_scored, refusal, tmp_path
):
    model = tiny_scored()
    scores = list(model.metadata["tokenizer.ggml.scores"])
    scores[268] = scores[267]  # the two most frequent unions
    model.metadata["tokenizer.ggml.scores"] = scores
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert "have the same score" in message


def test_a_byte_without_a_token_is_refused(tiny_scored, refusal, tmp_path):
    model = tiny_scored()
    kinds = list(model.metadata["tokenizer.ggml.token_type"])
    kinds[11 + 0x0A] = 1
    model.metadata["tokenizer.ggml.token_type"] = kinds
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert message == "there is no token for the byte 0x0A."


def test_tokens_without_scores_are_refused(tiny_scored, refusal, tmp_path):
    model = tiny_scored()
    del model.metadata["tokenizer.ggml.scores"]
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert message == "the metadata key 'tokenizer.ggml.scores' is missing."


def test_another_number_of_scores_is_refused(tiny_scored, refusal, tmp_path):
    model = tiny_scored()
    model.metadata["tokenizer.ggml.scores"] = [-1.0, -2.0]
    message = refusal(model.write(tmp_path / "m.gguf"))
    assert message.endswith("tokens but 2 scores.")


def test_special_tokens_of_phi_3_swallow_the_space_behind_them(
    tiny_of, tmp_path, llama_cpp, many_texts
):
    model = tiny_of("phi3")
    model.metadata["general.name"] = "Phi-3 Mini 4k"
    tokens = model.metadata["tokenizer.ggml.tokens"]
    tokens = ["<|endoftext|>", "</s>", "<s>", *tokens[3:]]
    tokens[5:10] = ["<|user|>", "<|end|>", "<|a|>", "<|b|>", "<|c|>"]  # were spaces
    model.metadata["tokenizer.ggml.tokens"] = tokens
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    server = llama_cpp(path)
    texts = [
        *many_texts,
        "a<|im_end|>\n\n b <unk> c</s> <s> d<|endoftext|> e",
        "<|im_end|>  <table> \n\n x",
    ]
    theirs = {text: server.ids(text, add_special=True) for text in texts}
    assert encode_all(tokenizer, texts, special=True) == theirs
    assert server.ids("<|im_end|> \nx") == server.ids("<|im_end|>x")
