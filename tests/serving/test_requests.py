import contextlib
import json
import socket

import pytest

from mlx_rsft import testing
from mlx_rsft.serving import requests
from mlx_rsft.serving.requests import Refused

ASKED = {"messages": [{"role": "user", "content": "hi"}]}
PAGE = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/secret"}}]
WRONG = {
    "not json": (b'{"a', "not JSON"),
    "not utf-8": (b"\xff{}", "not JSON"),
    "deep": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "not a JSON object"),
    "no messages": ({}, "not a list of turns"),
    "empty messages": ({"messages": []}, "not a list of turns"),
    "text for messages": ({"messages": "hi"}, "not a list of turns"),
    "a text as a turn": ({"messages": ["hi"]}, "message 1 is not an object"),
    "a strange role": ({"messages": [{"role": "x", "content": "a"}]}, "role"),
    "a list as role": ({"messages": [{"role": [], "content": "a"}]}, "role"),
    "no content": ({"messages": [{"role": "user"}]}, "no text"),
    "a picture": ({"messages": [{"role": "user", "content": PAGE}]}, "image_url"),
    "bad tools": (ASKED | {"tools": ["x"]}, "tools"),
    "a text as temperature": (ASKED | {"temperature": "hot"}, "temperature"),
    "NaN": (ASKED | {"temperature": float("nan")}, "temperature"),
    "true as a number": (ASKED | {"max_tokens": True}, "max_tokens"),
    "no tokens": (ASKED | {"max_tokens": 0}, "max_tokens"),
    "several answers": (ASKED | {"n": 2}, "n is 2"),
    "JSON wanted": (ASKED | {"response_format": {"type": "json"}}, "response_format"),
    "an empty stop": (ASKED | {"stop": [""]}, "stop"),
    "numbers as stop": (ASKED | {"stop": [3]}, "stop"),
    "a token beyond": (ASKED | {"logit_bias": {"99999": 1}}, "below 259"),
    "a token before": (ASKED | {"logit_bias": {"-1": 1}}, "below 259"),
    "a bias of text": (ASKED | {"logit_bias": {"1": "a"}}, "below 259"),
    "other adapters": (ASKED | {"adapters": "/tmp/x"}, "started with"),
    "a draft model": (ASKED | {"draft_model": "a/b"}, "started with"),
    "bad usage": (ASKED | {"stream_options": 3}, "stream_options"),
    "bad switches": (ASKED | {"chat_template_kwargs": []}, "chat_template_kwargs"),
    "a strange switch": (
        ASKED | {"chat_template_kwargs": {"tokenize": False}},
        "template",
    ),
    "a huge seed": (ASKED | {"seed": 2**70}, "seed"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_answered_with_why(tuned, name):
    body, reason = WRONG[name]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, told = tuned.raw("POST", "/v1/chat/completions", raw)
    error = json.loads(told)["error"]
    assert (status, error["code"]) == (400, 400), error
    assert reason in error["message"]
    assert tuned.get("/health")[0] == 200
    assert tuned.answer()


def test_all_that_is_wrong_is_said_at_once():
    body = {"messages": 3, "temperature": -1, "stop": 5}
    with pytest.raises(Refused) as told:
        requests.checked(body, "/v1/chat/completions", 10)
    for word in ("messages", "temperature", "stop"):
        assert word in told.value.message


def test_what_clients_leave_out_they_may_send_as_null(tuned):
    fields = dict.fromkeys([*requests.FIELDS, "tools"])
    assert tuned.answer(**fields | {"max_tokens": 8}) == tuned.answer()
    assert tuned.answer(user="me", metadata={}, xtc_probability=0) == tuned.answer()


def test_roles_and_parts_are_read_as_data_reads_them(tuned):
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    _, record = tuned.post(messages=[{"role": "user", "content": parts}], max_tokens=8)
    assert record["choices"][0]["message"]["content"] == tuned.answer()
    turns = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    assert tuned.post(messages=turns, max_tokens=2)[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/nowhere", 404),
        ("POST", "/health", 404),
        ("GET", "/v1/chat/completions", 404),
        ("PUT", "/v1/models", 501),
        ("BREW", "/", 501),
    ],
)
def test_what_is_not_there_is_said_in_json(tuned, method, path, status):
    found, told = tuned.raw(method, path, b"{}" if method != "GET" else None)
    assert found == status
    assert json.loads(told)["error"]["message"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\n\r\n", 411),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
    ],
)
def test_a_malformed_request_is_refused(tuned, head, status):
    with socket.create_connection(("127.0.0.1", tuned.port), timeout=20) as client:
        client.sendall(head)
        told = client.makefile("rb").read()
    assert str(status).encode() in told.splitlines()[0] or status == 400
    assert b'"error"' in told
    assert tuned.get("/health")[0] == 200


def test_a_client_that_sends_half_a_body_and_leaves_harms_nobody(tuned):
    head = b"POST /v1/completions HTTP/1.1\r\nContent-Length: 500\r\n\r\n{"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", tuned.port)) as client:
            client.sendall(head)
    assert tuned.answer()


def test_a_random_body_never_breaks_the_server(tuned):
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as some

    values = some.recursive(
        some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
        lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
        max_leaves=5,
    )
    bodies = some.dictionaries(
        some.sampled_from([*requests.FIELDS, "messages", "tools", "prompt"]), values
    )

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, some.sampled_from([*requests.CHAT, *requests.TEXT]))
    def check(body, path):
        with contextlib.suppress(Refused):
            assert requests.checked(body, path, testing.VOCABULARY)

    check()
