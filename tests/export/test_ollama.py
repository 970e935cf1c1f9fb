"""Chat templates as Ollama's: recognised by rendering, held against rendering."""

import pytest

from mlx_rsft import testing
from mlx_rsft.data import templates
from mlx_rsft.errors import ConfigError
from mlx_rsft.export import go_template, ollama, turns

CHATML = testing.CHAT_TEMPLATE
LLAMA3 = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content + '\n\n' %}"
    "{% set ms = messages[1:] %}{% else %}{% set s = '' %}{% set ms = messages %}"
    "{% endif %}{% for m in ms %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ s if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set s = messages[0].content %}"
    "{% set ms = messages[1:] %}{% else %}{% set s = '' %}{% set ms = messages %}"
    "{% endif %}{% for m in ms %}{% if m.role == 'user' %}[INST] "
    "{% if loop.last and s %}{{ s }}\n\n{% endif %}{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DEFAULTED = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nBe good.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}<start_of_turn>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PLAIN = templates.PLAIN_TEMPLATE.replace("first_token", "''")
TALK = [
    {"role": "user", "content": "Is it hot?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "How hot?\nTell."},
]


def tokenizer(template):
    made = testing.byte_tokenizer()
    made.chat_template = template
    made._tokenizer.chat_template = template
    return made


@pytest.mark.parametrize(
    ("template", "family", "place"),
    [
        (CHATML, "Phi 3", turns.OWN),  # its end is called like Phi's
        (LLAMA3, "Llama 3", turns.OWN),
        (GEMMA, "Gemma", turns.FIRST),
        (MISTRAL, "Mistral", turns.LAST),
        (PHI3, "Phi 3", turns.OWN),
        (DEFAULTED, "ChatML", turns.OWN),
        (NO_SYSTEM, "Gemma", turns.NONE),
        (PLAIN, "Phi 3", turns.FIRST),
    ],
)
def test_the_template_asks_in_the_words_of_the_chat_template(template, family, place):
    made = tokenizer(template)
    found = turns.find(made)
    assert (found.family, found.place) == (family, place)
    talks = [TALK, TALK[:1]]
    if place != turns.NONE:
        talks += [[{"role": "system", "content": "Short."}, *talk] for talk in talks]
    for talk in talks:
        wanted = made.apply_chat_template(
            talk, tokenize=False, add_generation_prompt=True
        )
        assert go_template.render(found.as_go(), talk) == wanted


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ loop.index }}: {{ m.content }}\n{% endfor %}",
        "{% for m in messages %}<t>{{ m.content | upper }}</t>{% endfor %}",
        "{% for m in messages %}{% if loop.last %}>{% endif %}{{ m.content }};"
        "{% endfor %}",
    ],
)
def test_a_template_that_is_more_than_turns_is_refused(template):
    with pytest.raises(ConfigError, match="cannot be written for Ollama") as caught:
        turns.find(tokenizer(template))
    assert "gguf-merged" in caught.value.hint


def test_what_ends_a_turn_stops_an_answer():
    text, _ = ollama.modelfile(tokenizer(DEFAULTED))
    assert text.startswith('FROM ./model.gguf\nTEMPLATE """')
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    assert 'PARAMETER stop "<|end|>"\n' in text


def test_what_the_emulation_does_not_know_it_refuses():
    for text in (
        "{{ .Tools }}",
        "{{ if .System }}x",
        "x{{ end }}",
        "{{ len2 .System }}",
    ):
        with pytest.raises(ValueError, match=r"known|end|closes"):
            go_template.render(text, TALK)
