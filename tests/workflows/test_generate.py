import json
import shutil

import pytest

from mlx_rsft import testing
from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.evaluation import generate as generation
from mlx_rsft.workflows.generate import generate
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening

NO = "{% if not enable_thinking %}<no>{% endif %}"
SWITCHED = testing.CHAT_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' %}" + NO + "{% endif %}"
    "{{ message['content'] }}",
).replace("assistant\n{% endif %}", "assistant\n" + NO + "{% endif %}")


@pytest.fixture
def fed(monkeypatch):
    """What the model is fed, as text."""
    seen = []

    def stream(model, tokenizer, prompt, **options):
        seen.append(tokenizer.decode(list(prompt)))
        return iter(())

    monkeypatch.setattr(generation, "stream", stream)
    return seen


@pytest.fixture
def thinker(tiny_folder, tmp_path):
    """A model whose template has a switch for thinking."""
    folder = tmp_path / "thinker"
    shutil.copytree(tiny_folder, folder)
    (folder / "chat_template.jinja").write_text(SWITCHED)
    return folder


def _generate(model, listener=None, template="model", **options):
    layer = {"model.source": str(model), "data.template": template}
    resolved = resolve([Layer("test", layer)])
    return generate(resolved, None, "hi", listener or Silent(), **options)


def test_thinking_is_off_by_default_as_in_training_and_said(thinker, fed):
    listener = Listening()
    _generate(thinker, listener)
    _generate(thinker, listener, thinking=True)
    assert fed == [
        "<|start|>user\nhi<|end|>\n<|start|>assistant\n<no>",
        "<|start|>user\nhi<|end|>\n<|start|>assistant\n",
    ]
    assert len([note for note in listener.notes if "--thinking" in note]) == 1


def test_thinking_is_refused_where_nothing_would_heed_it(tiny_folder, fed):
    listener = Listening()
    _generate(tiny_folder, listener)
    assert not listener.notes
    with pytest.raises(ConfigError, match="no switch for thinking"):
        _generate(tiny_folder, thinking=True)


def test_the_prompt_is_asked_in_the_template_that_is_chosen(tiny_folder, fed, tmp_path):
    _generate(tiny_folder, template="plain")
    assert fed == ["hi\n\n"]
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "chat_template.jinja").unlink()
    _generate(bare)
    assert fed[-1] == "hi"
    with pytest.raises(ConfigError, match="no chat template"):
        _generate(bare, thinking=True)


def test_training_and_use_ask_alike(thinker, fed, tmp_path):
    from mlx_rsft.workflows.check import show

    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"prompt": "hi", "completion": "ok"}))
    layer = Layer("test", {"model.source": str(thinker)})
    shown = show(resolve([layer]), file, 1, Silent())
    tokens = shown["examples"][0]["tokens"]
    _generate(thinker)
    assert "".join(t["text"] for t in tokens).startswith(f"{fed[0]}ok<|end|>")
