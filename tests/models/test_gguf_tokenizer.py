import json

import pytest
from transformers import AutoTokenizer

from mlx_rsft.models.gguf import convert

CHAT = [
    {"role": "user", "content": "  What is\n2 + 2? "},
    {"role": "assistant", "content": "4."},
    {"role": "user", "content": "And 日本?"},
]


@pytest.fixture(scope="module")
def demo_tokenizer(demo_folder):
    return AutoTokenizer.from_pretrained(demo_folder)


def encode_all(tokenizer, texts, *, special=False):
    return {text: tokenizer.encode(text, add_special_tokens=special) for text in texts}


def test_token_ids_are_those_of_llama_cpp(demo_tokenizer, demo_llama_cpp, nasty_texts):
    theirs = {text: demo_llama_cpp.ids(text) for text in nasty_texts}
    assert encode_all(demo_tokenizer, nasty_texts) == theirs


def test_decoding_gives_the_text_back(demo_tokenizer, nasty_texts):
    ids = encode_all(demo_tokenizer, nasty_texts)
    assert {text: demo_tokenizer.decode(ids[text]) for text in ids} == {
        text: text for text in nasty_texts
    }


def test_control_tokens_are_hidden_on_request_and_others_are_not(tiny, tmp_path):
    convert(tiny().write(tmp_path / "m"), tmp_path / "model", float_type="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer.encode("a<|im_end|>b<|endoftext|>c<|user defined|>d")
    assert ids.count(0) == ids.count(2) == ids.count(3) == 1
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text == "abc<|user defined|>d"


def test_the_chat_template_renders_as_in_llama_cpp(demo_tokenizer, demo_llama_cpp):
    ours = demo_tokenizer.apply_chat_template(
        CHAT, tokenize=False, add_generation_prompt=True
    )
    assert ours == demo_llama_cpp.render(CHAT)
    assert ours.count("<|im_start|>") == 5  # the template adds a system turn


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_the_file_decides_what_is_put_around_a_text(
    tiny, tmp_path, llama_cpp, bos, eos
):
    model = tiny()
    model.metadata["tokenizer.ggml.pre"] = "llama-bpe"
    model.metadata["tokenizer.ggml.add_bos_token"] = bos
    model.metadata["tokenizer.ggml.add_eos_token"] = eos
    path = model.write(tmp_path / "m.gguf")
    convert(path, tmp_path / "model", float_type="float32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    theirs = llama_cpp(path).ids("Hello", add_special=True)
    assert tokenizer.encode("Hello") == theirs
    assert (theirs[0] == 1, theirs[-1] == 2) == (bos, eos)


def test_every_token_that_ends_an_answer_is_an_end(tiny, tmp_path):
    model = tiny()
    model.metadata["tokenizer.ggml.eot_token_id"] = 3
    model.metadata["tokenizer.ggml.eom_token_id"] = 2
    convert(model.write(tmp_path / "m.gguf"), tmp_path / "model", float_type="float32")
    text = (tmp_path / "model" / "generation_config.json").read_text()
    assert json.loads(text) == {"bos_token_id": 1, "eos_token_id": [2, 3]}


def test_a_file_without_a_chat_template_gets_none(tiny, tmp_path):
    folder = tmp_path / "model"
    convert(tiny().write(tmp_path / "m.gguf"), folder, float_type="float32")
    assert not (folder / "chat_template.jinja").exists()
    assert AutoTokenizer.from_pretrained(folder).chat_template is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tokenizer.ggml.model", "bert", "tokenizer model 'bert' cannot be read"),
        ("tokenizer.ggml.eos_token_id", 9999, "is 9999, but there are 1205 tokens"),
        ("tokenizer.ggml.token_type", [1, 2], "1205 tokens but 2 token types"),
        ("tokenizer.ggml.tokens", [7] * 1205, "holds something that is not text"),
        ("tokenizer.ggml.tokens", ["a"] * 1205, "the same token twice"),
    ],
)
def test_a_contradiction_is_refused(tiny, refusal, tmp_path, key, value, message):
    model = tiny()
    model.metadata[key] = value
    assert message in refusal(model.write(tmp_path / "m.gguf"))
