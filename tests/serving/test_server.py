import json
import shutil
import socket
import threading
import time

import pytest

from mlx_rsft import testing
from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError, MachineError
from mlx_rsft.serving.server import Server
from mlx_rsft.workflows.generate import generate
from mlx_rsft.workflows.reporter import Silent

from .conftest import serving


def _generated(model, adapter, tokens=8):
    layer = {"model.source": str(model), "evaluation.max_tokens": tokens}
    return "".join(generate(resolve([Layer("test", layer)]), adapter, "hi", Silent()))


def test_the_adapter_answers_whatever_model_a_client_names(
    tuned, tiny_folder, tiny_adapter
):
    base, adapted = _generated(tiny_folder, None), _generated(tiny_folder, tiny_adapter)
    assert base != adapted
    assert tuned.answer() == adapted
    for name in ("default_model", str(tiny_folder), "gpt-4o", ""):
        assert tuned.answer(model=name) == adapted
        assert tuned.ask(model=name)[1]["model"] == str(tiny_folder)
    with serving(tiny_folder) as bare:
        assert bare.answer(model=str(tiny_folder)) == base


def test_health_and_models_say_what_is_served(tuned, tiny_folder, tiny_adapter):
    status, health = tuned.get("/health")
    assert (status, health["status"]) == (200, "ok")
    assert health["model"] == str(tiny_folder)
    assert health["adapter"]["path"] == str(tiny_adapter)
    assert health["adapter"]["largest_logit_change"] > 0.1
    _, models = tuned.get("/v1/models")
    (entry,) = models["data"]
    assert (models["object"], entry["id"]) == ("list", str(tiny_folder))
    assert tuned.get(f"/v1/models/{entry['id']}")[1] == entry


def test_a_stream_says_the_same_as_one_answer_and_counts_it(tuned):
    whole = tuned.ask()[1]
    events = tuned.streamed(stream_options={"include_usage": True})
    pieces = [e["choices"][0]["delta"].get("content", "") for e in events[:-1]]
    assert "".join(pieces) == whole["choices"][0]["message"]["content"]
    assert len([piece for piece in pieces if piece]) > 1
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    counted = {k: events[-1]["usage"][k] for k in ("prompt_tokens", "total_tokens")}
    assert counted == {k: whole["usage"][k] for k in counted}


def test_text_is_continued_as_it_stands(tuned):
    status, record = tuned.post("/v1/completions", prompt="hi", max_tokens=4)
    assert status == 200
    assert record["usage"]["prompt_tokens"] == 2
    assert record["choices"][0]["text"]


def test_many_clients_at_once_each_get_their_own_answer(tuned):
    texts = [f"question {n}" for n in range(12)]
    alone = [tuned.answer(text) for text in texts]
    assert len(set(alone)) > 6
    found = {}

    def ask(text):
        seeded = {"seed": 1} if text.endswith("3") else {}  # served one at a time
        found[text] = tuned.answer(text, **seeded)

    threads = [threading.Thread(target=ask, args=[text]) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == dict(zip(texts, alone, strict=True))


def test_a_client_that_hangs_up_frees_the_server(tuned):
    before = tuned.answer()
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "long"}],
            "stream": True,
            "max_tokens": 100_000,
            "logit_bias": {str(testing.VOCABULARY - 1): -100},  # never ends by itself
        }
    ).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", tuned.port)) as client:
            client.sendall(head.encode() + body)
            assert b"200 OK" in client.recv(64)
    deadline = time.monotonic() + 20
    while sum("hung up" in note for note in tuned.notes) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert tuned.answer() == before
    assert tuned.get("/health")[0] == 200


def test_a_failure_while_answering_is_told_and_the_next_answer_comes(
    tuned, monkeypatch
):
    before = tuned.answer()
    monkeypatch.setattr(
        "mlx_lm.server._make_logits_processors", lambda args: [lambda *_: 1 / 0]
    )
    status, record = tuned.ask()
    assert status == 500
    assert "division by zero" in str(record["error"])
    _, raw = tuned.raw(
        "POST",
        "/v1/chat/completions",
        json.dumps({"messages": [{"role": "user", "content": "a"}], "stream": True}),
    )
    assert b"division by zero" in raw
    assert b"[DONE]" not in raw
    monkeypatch.undo()
    assert tuned.answer() == before
    assert any("starts anew" in note for note in tuned.notes)


def test_a_prompt_that_leaves_no_room_is_refused_and_an_answer_is_cut_at_the_end(
    tmp_path,
):
    folder = testing.write_tiny_model(tmp_path / "m", max_position_embeddings=64)
    with serving(folder) as client:
        status, record = client.ask("x" * 100)
        assert status == 400
        assert "119 tokens long" in record["error"]["message"]
        assert "at most 64" in record["error"]["message"]
        status, record = client.ask("x" * 20, max_tokens=1000)
        assert record["usage"]["total_tokens"] <= 64


def test_a_base_model_says_how_to_be_asked(tiny_folder, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_folder, bare)
    (bare / "chat_template.jinja").unlink()
    with serving(bare) as client:
        status, record = client.ask()
        assert status == 400
        assert "--template plain" in record["error"]["message"]
        assert client.post("/v1/completions", prompt="hi", max_tokens=2)[0] == 200
    with serving(bare, template="plain") as client:
        assert client.ask()[0] == 200


def test_pages_may_ask_only_when_they_are_named(tiny_folder):
    body = json.dumps({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})

    def ask(client, origin):
        where = "/v1/chat/completions"
        answer = client.send("POST", where, body, {"Origin": origin})
        return answer.status, answer.headers.get("Access-Control-Allow-Origin")

    page = "http://localhost:3000"
    with serving(tiny_folder, origins=(page,)) as client:
        assert ask(client, page) == (200, page)
        assert ask(client, "https://elsewhere.example") == (403, None)


def test_an_address_in_use_is_said_before_the_model_is_loaded(tuned, tiny_folder):
    with pytest.raises(MachineError, match=r"port \d+: .*in use.*--port"):
        Server("127.0.0.1", tuned.port, print)
    with pytest.raises(MachineError, match="Nothing can listen on"):
        Server("no.such.host.invalid", 0, print)


def test_thinking_is_refused_where_nothing_would_heed_it(tiny_folder):
    with (
        pytest.raises(ConfigError, match="no switch for thinking"),
        serving(tiny_folder, thinking=True),
    ):
        pass
