"""The address that is listened on, and the life of the server behind it."""

from __future__ import annotations

import socket
import socketserver
import sys
import time
from http.server import ThreadingHTTPServer
from typing import Any

from mlx_lm.server import get_system_fingerprint

from mlx_rsft.errors import MachineError
from mlx_rsft.serving.generator import Generator, Log
from mlx_rsft.serving.handler import Handler
from mlx_rsft.serving.provider import Provider, Served

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Server(ThreadingHTTPServer):
    """Listens from the start; answers once it is told what to serve.

    Args:
        host: Name or address of the interface.
        port: 0 takes any that is free.
        log: Told each request in a line.

    Raises:
        MachineError: If the address cannot be listened on.
    """

    daemon_threads = True
    served: Served
    generator: Generator

    def __init__(self, host: str, port: int, log: Log) -> None:
        self.log = log
        self.started = int(time.time())
        self.fingerprint: str = get_system_fingerprint()
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self.address_family = family
            super().__init__(address[:2], Handler)  # pyright: ignore
        except (OSError, OverflowError) as problem:
            raise MachineError(
                f"Nothing can listen on {host}, port {port}: {problem}.",
                hint="Pass another --port (0 takes a free one), or another --host.",
            ) from None

    def server_bind(self) -> None:
        """Bind without asking a name server, which can take long where there is none."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # pyright: ignore

    @property
    def url(self) -> str:
        """Where clients find it, such as ``http://127.0.0.1:8080/v1``."""
        host: Any = self.server_name
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/v1"

    @property
    def vocabulary(self) -> int:
        """Tokens that may be named in a request."""
        return len(self.served.tokenizer.get_vocab())

    def run(self, served: Served) -> None:
        """Answer until the process is interrupted.

        Raises:
            KeyboardInterrupt: Once all is put away.
        """
        self.served = served
        self.generator = Generator(Provider(served), self.log)
        try:
            self.serve_forever(poll_interval=0.1)
        finally:
            self.server_close()
            self.generator.stop_and_join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no error; anything else is told in a line."""
        del request, client_address
        problem = sys.exception()
        if not isinstance(problem, ConnectionError | TimeoutError):
            self.log(f"a request failed: {problem!r}")
