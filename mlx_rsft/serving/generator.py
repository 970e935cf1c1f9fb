"""mlx-lm's generator, which starts anew when a request breaks it."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mlx_lm.models.cache import LRUPromptCache
from mlx_lm.server import CompletionRequest, ResponseGenerator

from mlx_rsft.serving.provider import CACHED, Provider

Log = Callable[[str], None]


class _Requests(queue.Queue[Any]):
    """Knows the queues on which clients wait for their answers."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: weakref.WeakSet[queue.Queue[Any]] = weakref.WeakSet()
        self._lock = threading.Lock()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        with self._lock:
            self._waiting.add(item[0])
        super().put(item, block, timeout)

    def fail_all(self, problem: Exception) -> None:
        """Tell every client that waits, also those whose request is in the queue."""
        with self._lock:
            waiting = list(self._waiting)
        while not self.empty():
            self.get_nowait()
        for answer in waiting:
            answer.put(problem)


class Generator(ResponseGenerator):
    """Answers requests in one thread of its own, several at a time.

    A failure there would otherwise end the thread, and with it every later answer.
    """

    def __init__(self, provider: Provider, log: Log) -> None:
        self._log = log
        self._one_at_a_time = threading.Lock()
        super().__init__(provider, LRUPromptCache(CACHED))  # pyright: ignore
        self.requests = _Requests()

    def _run_generate(self) -> None:
        while not self._stop:
            try:
                self._generate()
            except Exception as problem:  # noqa: BLE001 - one request must not end all
                self._log(f"answering failed and starts anew: {problem!r}")
                self.prompt_cache = LRUPromptCache(CACHED)
                self.requests.fail_all(RuntimeError(f"Answering failed: {problem}"))

    def _log_cache_stats(self) -> None:
        """Of no interest to a user."""

    def _tokenize(self, tokenizer: Any, request: Any, args: Any) -> Any:
        # Tokenizers change a state of their own while they encode.
        with self._one_at_a_time:
            return super()._tokenize(tokenizer, request, args)

    def length(self, request: CompletionRequest, options: dict[str, Any] | None) -> int:
        """The tokens of a request; raises whatever its template does."""
        args = SimpleNamespace(chat_template_kwargs=options)
        return len(self._tokenize(self.model_provider.tokenizer, request, args)[0])
