"""One request: checked first, answered by mlx-lm's handler, refused in plain words."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from mlx_lm.server import APIHandler, CompletionRequest

from mlx_rsft.errors import ModelError
from mlx_rsft.models import load
from mlx_rsft.serving import requests
from mlx_rsft.serving.generator import Generator, Log
from mlx_rsft.serving.provider import Served
from mlx_rsft.serving.requests import Refused

MOST_BYTES = 32 << 20
"""Of a request's body; a conversation of a million tokens is a tenth of it."""
GONE = (ConnectionError, TimeoutError)
"""What is raised when a client hangs up or no longer reads."""


class Host(Protocol):
    """What a request is told by the server that took it."""

    served: Served
    generator: Generator
    log: Log
    started: int
    fingerprint: str

    @property
    def vocabulary(self) -> int:
        """Tokens that may be named in a request."""
        ...


class Handler(APIHandler):
    """Speaks OpenAI's protocol with one client."""

    timeout = 60
    """Seconds that a client may keep a connection without a word."""
    server: Host  # pyright: ignore

    def __init__(self, connection: Any, address: Any, server: Host) -> None:
        super().__init__(
            server.generator,
            connection,
            address,
            server,
            system_fingerprint=server.fingerprint,
        )

    def do_GET(self) -> None:  # noqa: N802 - the library calls it so
        """What is served, and whether it is well."""
        served = self.server.served
        if self.path in ("/", "/health"):
            healthy = self.response_generator.is_healthy
            record = {"status": "ok" if healthy else "unavailable"}
            self._send(200 if healthy else 503, record | served.as_record())
            return
        entry = {
            "id": served.name,
            "object": "model",
            "created": self.server.started,
            "owned_by": "mlx-rsft",
            **served.as_record(),
        }
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [entry]})
        elif self.path.startswith("/v1/models/"):
            self._send(200, entry)
        else:
            self._refuse(self._unknown())

    def do_POST(self) -> None:  # noqa: N802
        """Answer a question."""
        try:
            self._check_origin()
            raw = self._body()
            self._check_path()
            vocabulary = self.server.vocabulary
            body = requests.checked(requests.parse(raw), self.path, vocabulary)
            self._hand_over(body | {"model": self.server.served.name})
            super().do_POST()
        except Refused as refused:
            self._refuse(refused)
        except GONE:
            self.close_connection = True
            self.server.log("a client hung up before its answer was complete")
        except Exception as problem:  # noqa: BLE001 - the server outlives a bad answer
            self._refuse(Refused(500, str(problem)))

    def _unknown(self) -> Refused:
        there = ", ".join(("/health", "/v1/models", *requests.CHAT[:1], *requests.TEXT))
        return Refused(404, f"There is no {self.path}; there is {there}.")

    def _check_origin(self) -> None:
        """Browsers name the page that asks; no page may use the model unasked."""
        origin = self.headers.get("Origin")
        if origin is not None and origin not in self.server.served.origins:
            raise Refused(
                403, f"Pages of {origin} may not ask; start with --allow-origin."
            )

    def _check_path(self) -> None:
        if self.path not in (*requests.CHAT, *requests.TEXT):
            raise self._unknown()
        is_chat = self.path in requests.CHAT
        if is_chat and not self.server.served.tokenizer.has_chat_template:
            raise Refused(
                400,
                "The model has no chat template. Ask /v1/completions, or start the "
                "server with --template plain or a .jinja file.",
            )

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if length is None:
            raise Refused(411, "The request has no Content-Length.")
        if not length.isdecimal():
            raise Refused(400, f"The Content-Length {length!r} is no size.")
        if int(length) > MOST_BYTES:
            raise Refused(413, f"The body is larger than {MOST_BYTES:,} bytes.")
        return self.rfile.read(int(length))

    def _hand_over(self, body: Mapping[str, Any]) -> None:
        """Let mlx-lm's handler read the checked body in place of what was sent."""
        raw = json.dumps(body).encode()
        self.headers.replace_header("Content-Length", str(len(raw)))
        self.rfile = io.BytesIO(raw)

    def handle_completion(
        self, request: CompletionRequest, stop_words: list[str]
    ) -> None:
        """Answer, unless the question leaves no room for that in the model's context."""
        generator, context = self.server.generator, self.server.served.context
        try:
            length = generator.length(request, self.chat_template_kwargs)
        except Exception as problem:  # noqa: BLE001 - a template can raise anything
            raise Refused(
                400, f"The chat template refuses the conversation: {problem}"
            ) from None
        if not length:
            raise Refused(400, "The prompt has no tokens.")
        try:
            self.max_tokens = load.room(context, length, self.max_tokens)
        except ModelError as problem:
            raise Refused(400, problem.message) from None
        super().handle_completion(request, stop_words)

    def _set_completion_headers(self, status_code: int = 200) -> None:
        # mlx-lm says 404 where generation fails; what is not there is said before.
        super()._set_completion_headers(500 if status_code == 404 else status_code)

    def _refuse(self, refused: Refused) -> None:
        """Say why there is no answer; inside a stream too, where a status is past."""
        error = {
            "message": refused.message,
            "type": "server_error"
            if refused.status >= 500
            else "invalid_request_error",
            "code": refused.status,
        }
        self.close_connection = True
        try:
            if getattr(self, "_headers_sent", False):
                self.wfile.write(f"data: {json.dumps({'error': error})}\n\n".encode())
            else:
                self._headers_buffer = []
                self._send(refused.status, {"error": error})
        except GONE:
            self.server.log("a client hung up before it was told what was wrong")

    def _send(self, status: int, record: Mapping[str, Any]) -> None:
        raw = json.dumps(record).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        if hasattr(self, "headers"):  # not where the request's first line is malformed
            self._set_cors_headers()
        self.end_headers()
        self.wfile.write(raw)

    def end_headers(self) -> None:
        """Note that the status is on its way and cannot be taken back."""
        super().end_headers()
        self._headers_sent = True

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """What the protocol itself refuses, such as a method that is not there."""
        status = HTTPStatus(code)
        self._refuse(Refused(code, message or explain or status.phrase))

    def log_message(self, format: str, *args: Any) -> None:
        """One line per request."""
        del format, args

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """One line per answer, as it begins."""
        del size
        number = code.value if isinstance(code, HTTPStatus) else code
        moment = time.strftime("%H:%M:%S")
        self.server.log(f"{moment} {number} {getattr(self, 'requestline', '')}")
