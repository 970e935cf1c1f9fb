import itertools
import shutil

import pytest

from mlx_rsft import testing
from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.workflows.chat import COMMANDS, Manner, chat
from mlx_rsft.workflows.generate import generate
from mlx_rsft.workflows.reporter import Silent


def _resolved(model, **more):
    return resolve([Layer("test", {"model.source": str(model), **more})])


def _chat(model, adapter=None, **manner):
    return chat(
        _resolved(model), adapter, Manner(**{"max_tokens": 8, **manner}), Silent()
    )


def _said(talk, text):
    return "".join(talk.say(text))


def test_the_first_answer_is_that_of_generate(tiny_folder, tiny_adapter):
    resolved = _resolved(tiny_folder, **{"evaluation.max_tokens": 8})
    ours = "".join(generate(resolved, tiny_adapter, "hi", Silent()))
    assert _said(_chat(tiny_folder, tiny_adapter), "hi") == ours


def test_later_answers_know_the_earlier_turns_until_they_are_forgotten(tiny_folder):
    talk = _chat(tiny_folder, system="be brief")
    first = _said(talk, "one")
    second = _said(talk, "two")
    roles = [message["role"] for message in talk.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert talk.messages[2]["content"] == first
    assert talk.command("/reset") == "forgotten"
    assert [message["role"] for message in talk.messages] == ["system"]
    assert _said(talk, "one") == first
    talk.command("/reset")
    assert _said(talk, "two") != second


def test_the_adapter_goes_off_on_and_in_between(tiny_folder, tiny_adapter):
    bare = _said(_chat(tiny_folder), "hi")
    talk = _chat(tiny_folder, tiny_adapter)
    tuned = _said(talk, "hi")
    assert tuned != bare
    for command, told, answer in (
        ("/adapter off", "adapter off", bare),
        ("/adapter on", "adapter on, weight 1", tuned),
        ("/weight 0", "adapter off", bare),
        ("/weight 0.5", "adapter on, weight 0.5", None),
        ("/adapter off", "adapter off", bare),
        ("/adapter on", "adapter on, weight 0.5", None),
        ("/weight 1", "adapter on, weight 1", tuned),
    ):
        assert talk.command(command) == told
        assert talk.command("/adapter") == told
        talk.command("/reset")
        assert answer is None or _said(talk, "hi") == answer


def test_what_cannot_be_done_is_said_and_the_talk_goes_on(tiny_folder, tiny_adapter):
    talk = _chat(tiny_folder)
    for line, reason in (
        ("/weigth 1", "Did you mean '/weight'"),
        ("/adapter off", "no adapter"),
        ("/weight 1", "no adapter"),
    ):
        with pytest.raises(ConfigError, match=reason):
            talk.command(line)
    tuned = _chat(tiny_folder, tiny_adapter)
    for line, reason in (("/weight heavy", "no number"), ("/adapter of", "neither")):
        with pytest.raises(ConfigError, match=reason):
            tuned.command(line)
    assert not tuned.over
    tuned.command("/quit")
    assert tuned.over
    assert all(name in talk.command("/help") for name in COMMANDS)


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(tiny_folder):
    talk = _chat(tiny_folder)
    pieces = talk.say("hi")
    some = "".join(itertools.islice(pieces, 3))
    pieces.close()
    assert talk.messages[-1] == {"role": "assistant", "content": some}
    untouched = list(talk.messages)
    talk.say("stopped before it began").close()
    assert talk.messages == untouched


def test_a_conversation_that_is_too_long_is_not_answered(tmp_path):
    folder = testing.write_tiny_model(tmp_path / "m", max_position_embeddings=64)
    talk = _chat(folder, max_tokens=1000)
    with pytest.raises(ConfigError, match=r"at most 64.*/reset"):
        talk.say("x" * 100)
    assert not talk.messages


def test_a_model_without_turns_is_refused_by_name(tiny_folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="--template"):
        _chat(bare)
    with pytest.raises(ConfigError, match="no switch for thinking"):
        _chat(tiny_folder, thinking=True)


def test_a_system_prompt_that_the_template_has_no_place_for_is_refused(
    tiny_folder, tmp_path
):
    folder = tmp_path / "strict"
    shutil.copytree(tiny_folder, folder)
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
    template = refusing + "{% endif %}" + testing.CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match="refuses the conversation: no system"):
        _chat(folder, system="be brief").say("hi")
