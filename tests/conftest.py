"""Shared fixtures: a tiny model and data, the built-in models, and llama.cpp."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from mlx_rsft import files, testing
from mlx_rsft.models import demo
from mlx_rsft.models.gguf import convert

USERS_CACHE = files.cache_folder()  # read now, before any test moves the cache


@pytest.fixture(scope="session", autouse=True)
def _heeding_interrupts() -> None:
    """Children inherit an ignored Ctrl-C, as under nohup; here they are to heed it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def demo_gguf() -> Path:
    """The demo model, in the user's own cache so that it is downloaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_RSFT_CACHE", str(USERS_CACHE))
        return demo.gguf_file()


@pytest.fixture(scope="session")
def gemma_gguf() -> Path:
    """The built-in Gemma 3 270M, kept where the demo model is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLX_RSFT_CACHE", str(USERS_CACHE))
        return demo.gguf_file("demo-gemma")


@pytest.fixture(scope="session")
def gemma_folder(gemma_gguf, tmp_path_factory) -> Path:
    """The built-in Gemma as a folder, converted by the code under test."""
    folder = tmp_path_factory.mktemp("gemma") / "model"
    convert(gemma_gguf, folder, float_type="float32")
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A tiny model on disk; not to be changed."""
    return testing.write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_adapter(tiny_folder, tmp_path_factory) -> Path:
    """An adapter of the tiny model that changes what it writes; not to be changed."""
    import mlx.core as mx

    from mlx_rsft.models import adapters, load
    from mlx_rsft.settings import AdapterSettings, ModelSettings

    model = load.load(ModelSettings(source=str(tiny_folder))).model
    mx.random.seed(1)
    config = adapters.attach(model, AdapterSettings(rank=2, layers="all"))
    for module in model.modules():
        if "lora_b" in module:
            module.lora_b = mx.random.normal(module.lora_b.shape) * 0.3
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    adapters.save(model, config, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data folder with four splits; not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("train", 20), ("valid", 4), ("test", 6), ("test_shifted", 6)):
        pairs = [(f"{name} {n}", f"{n}") for n in range(rows)]
        write_rows(folder / f"{name}.jsonl", pairs)
    return folder


def write_rows(path: Path, pairs: list[tuple[str, str]]) -> Path:
    """A data file with one question and answer per row."""
    lines = [json.dumps({"prompt": q, "completion": a}) for q, a in pairs]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class Launcher:
    """Launches commands as ranks, from one process with all libraries loaded."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(Path(__file__).with_name("launching.py"))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self._folder, self._count = folder, 0

    def close(self) -> None:
        self._process.communicate()

    def __call__(self, works, environment=None, send=None):
        """See ``launch`` in ``launching.py``."""
        self._count += 1
        given = {
            "works": works,
            "log": str(self._folder / f"log-{self._count}-"),
            "environment": environment or {},
            "send": send,
        }
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="session")
def launched(tmp_path_factory):
    with contextlib.closing(Launcher(tmp_path_factory.mktemp("launched"))) as launcher:
        yield launcher


SERVER = """
import os, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx = 512
params.n_parallel = 1
params.cpuparams.n_threads = 2
params.warmup = False
params.verbosity = 0
# Float16 is its default for the cache and inside flash attention.
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
flash = xllamacpp.llama_flash_attn_type
params.flash_attn_type = flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
print("address", server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


class LlamaCpp:
    """A llama.cpp server with one model.

    In a process of its own, because ending one inside ours sometimes never returns.
    """

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", SERVER, str(path)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        lines = (line.split() for line in self._process.stdout)
        found = next((line[1] for line in lines if line[:1] == ["address"]), None)
        assert found, "llama.cpp (package xllamacpp) did not start; see stderr"
        self._address = found
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def close(self) -> None:
        self._process.communicate()

    def _post(self, path, **body):
        request = urllib.request.Request(
            self._address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with self._opener.open(request) as answer:
            return json.load(answer)

    def continued(self, ids: list[int], tokens: int) -> str:
        """What it finds most likely to follow."""
        body = {"prompt": ids, "n_predict": tokens, "temperature": 0}
        return self._post("/completion", **body)["content"]

    def ids(self, text: str, *, add_special: bool = False) -> list[int]:
        body = {"content": text, "add_special": add_special, "parse_special": True}
        return self._post("/tokenize", **body)["tokens"]

    def render(self, messages: list[dict[str, str]]) -> str:
        return self._post("/apply-template", messages=messages)["prompt"]

    def log_probs(self, ids: list[int], most_likely: int) -> dict[int, float]:
        """The next token's log-probabilities in nats, of the most likely ones."""
        # A token that is half a character would be held back with its probabilities,
        # so a plain letter is forced; those reported are of the untouched logits.
        answer = self._post(
            "/completion",
            prompt=ids,
            n_predict=1,
            n_probs=most_likely,
            logit_bias=[[self.ids("a")[0], 1e4]],
            temperature=0,
        )
        top = answer["completion_probabilities"][0]["top_logprobs"]
        return {entry["id"]: entry["logprob"] for entry in top}


@pytest.fixture
def llama_cpp():
    """Starts llama.cpp on a file, for the length of a test."""
    with contextlib.ExitStack() as started:

        def start(path: Path) -> LlamaCpp:
            return started.enter_context(contextlib.closing(LlamaCpp(path)))

        yield start


@pytest.fixture(scope="session")
def demo_llama_cpp(demo_gguf):
    with contextlib.closing(LlamaCpp(demo_gguf)) as server:
        yield server


@pytest.fixture(scope="session")
def gemma_llama_cpp(gemma_gguf):
    with contextlib.closing(LlamaCpp(gemma_gguf)) as server:
        yield server
