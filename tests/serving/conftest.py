"""A real server around the tiny model, and a client that speaks HTTP to it."""

import contextlib
import http.client
import json
import threading

import pytest

from mlx_rsft.config import Layer, resolve
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.serve import Manner, serve


class Listening(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Client:
    """Asks a server on this machine; every request on a connection of its own."""

    def __init__(self, port):
        self.port = port

    def send(self, method, path, raw=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, raw, headers or {})
        return connection.getresponse()

    def raw(self, method, path, raw=None, headers=None):
        with self.send(method, path, raw, headers) as answer:
            return answer.status, answer.read()

    def get(self, path):
        status, raw = self.raw("GET", path)
        return status, json.loads(raw)

    def post(self, path="/v1/chat/completions", **body):
        kind = {"Content-Type": "application/json"}
        status, raw = self.raw("POST", path, json.dumps(body), kind)
        return status, json.loads(raw)

    def ask(self, text="hi", **body):
        messages = [{"role": "user", "content": text}]
        return self.post(messages=messages, **{"max_tokens": 8, **body})

    def answer(self, text="hi", **body):
        status, record = self.ask(text, **body)
        assert status == 200, record
        return record["choices"][0]["message"]["content"]

    def streamed(self, text="hi", **body):
        """The parsed events of a streamed answer."""
        body = {"messages": [{"role": "user", "content": text}], **body}
        body = {"max_tokens": 8, "stream": True, **body}
        _, raw = self.raw("POST", "/v1/chat/completions", json.dumps(body))
        lines = [line[6:] for line in raw.decode().split("\n\n") if line[:5] == "data:"]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def serving(model, adapter=None, template="model", **manner):
    layer = Layer("test", {"model.source": str(model), "data.template": template})
    listener = Listening()
    ready = serve(resolve([layer]), adapter, Manner(port=0, **manner), listener)
    thread = threading.Thread(target=ready.run)
    thread.start()
    client = Client(ready.server.server_port)
    client.notes, client.server = listener.notes, ready.server
    try:
        yield client
    finally:
        ready.server.shutdown()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="package")
def tuned(tiny_folder, tiny_adapter):
    """A server with an adapter."""
    with serving(tiny_folder, tiny_adapter) as client:
        yield client
