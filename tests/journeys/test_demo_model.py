"""The whole way on a real model: fetch, train, use elsewhere, measure."""

import contextlib
import io
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_rsft.cli.main import group
from mlx_rsft.models import adapters, load
from mlx_rsft.settings import ModelSettings


def _run(*arguments):
    ran = subprocess.run(
        list(map(str, arguments)),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def _ours(*arguments):
    """What a command prints; inside this process, where imports are paid for."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = group.main(list(map(str, arguments)), standalone_mode=False)
    assert not code
    return said.getvalue()


@pytest.fixture(scope="module")
def journey(tmp_path_factory, demo_gguf):
    """Demo data and a short run on it; pure fixtures of the steps below."""
    root = tmp_path_factory.mktemp("journey")
    _ours("data", "demo", root / "data", "--train-rows", 64, "--test-rows", 16)
    _ours(
        *("train", "--model", demo_gguf, "--data", root / "data" / "train.jsonl"),
        *("--run-dir", root / "run", "--objective", "dft:floor=0.1"),
        *("--layers", "last:4", "--steps", 8, "--batch-size", 8),
    )
    return root


def test_training_lowers_the_true_nll_on_rows_never_seen(journey, demo_gguf):
    where = ["--model", demo_gguf, "--data", journey / "data", "--splits", "test"]
    where += ["--metrics", "nll"]
    bare = json.loads(_ours("eval", *where, "--json"))
    tuned = json.loads(
        _ours("eval", *where, "--adapter", journey / "run/adapter", "--json")
    )

    def nll(record):
        return record["splits"]["test"]["metrics"]["nll"]

    assert nll(tuned)["high"] < nll(bare)["low"]


def test_stock_mlx_lm_computes_the_same_logits_with_the_adapter(journey, demo_gguf):
    from mlx_lm import load as stock_load

    ours = load.load(ModelSettings(source=str(demo_gguf)))
    adapter = journey / "run" / "adapter"
    tokens = mx.array(ours.tokenizer.encode("Spindle noisy at station 12."))[None]
    bare = ours.model(tokens)
    mx.eval(bare)
    adapters.load(ours.model, adapter)
    stock, _ = stock_load(str(ours.path), adapter_path=str(adapter))
    apart = mx.abs(stock(tokens) - ours.model(tokens)).max().item()
    effect = mx.abs(ours.model(tokens) - bare).max().item()
    # Stock multiplies quantised weights where we multiply the same numbers as float32;
    # sums of 576 products in another order, through 30 layers.
    assert apart < 5e-3
    assert effect > 20 * apart


def test_the_stock_command_line_generates_with_the_adapter(journey, demo_gguf):
    folder = load.load(ModelSettings(source=str(demo_gguf))).path
    row = json.loads((journey / "data/test.jsonl").read_text().splitlines()[0])
    question = row["messages"][0]["content"]
    adapter = journey / "run" / "adapter"
    stock = _run(
        *(Path(sys.executable).parent / "mlx_lm.generate", "--model", folder),
        *("--adapter-path", adapter, "--prompt", question, "--max-tokens", 12),
        *("--temp", 0, "--verbose", "False"),
    )
    ours = _ours(
        *("generate", "--model", demo_gguf, "--adapter", adapter),
        *("--prompt", question, "--max-tokens", 12),
    )
    assert ours.strip()
    assert stock.strip() == ours.strip()


def test_the_bare_model_answers_in_sensible_english(demo_gguf):
    said = _ours(
        *("generate", "--model", demo_gguf, "--max-tokens", 24),
        *("--prompt", "What is the capital of France?"),
    )
    assert "Paris" in said


def test_generated_answers_of_a_real_model_are_judged(tmp_path, demo_gguf):
    rows = [
        {"prompt": "What is the capital of France?", "completion": "Paris"},
        {"prompt": "What is the capital of Spain?", "completion": "Atlantis"},
    ]
    data = tmp_path / "test.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    metrics = "contains,generated_exact_match,avg_at_n:by=contains,choices:of="
    told = _ours(
        *("eval", "--model", demo_gguf, "--data", data, "--max-tokens", 16, "--json"),
        *("--samples", 2, "--temperature", 0.2),
        *("--metrics", metrics + "Paris|Atlantis"),
    )
    found = json.loads(told)["splits"]["test"]["metrics"]
    assert found["contains"]["value"] == 0.5
    assert found["generated_exact_match"]["value"] == 0  # it answers in sentences
    assert 0 < found["avg_at_n:by=contains"]["value"] <= 0.5
    assert found["choices:of=Paris|Atlantis"]["n"] == 2


def test_a_served_adapter_answers_under_any_name_until_ctrl_c(journey, demo_gguf):
    adapter = journey / "run" / "adapter"
    row = json.loads((journey / "data/test.jsonl").read_text().splitlines()[0])
    flags = ["--model", demo_gguf, "--adapter", adapter]
    command = [sys.executable, "-m", "mlx_rsft", "serve", *flags, "--port", "0"]
    server = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        ready = server.stdout.readline().decode()
        assert str(adapter) in ready
        client = openai_style_client(ready.split()[-1])
        (name,) = (model["id"] for model in client("/models")["data"])
        messages = row["messages"][:1]
        body = {"model": name, "messages": messages, "max_tokens": 12}
        said = client("/chat/completions", body)["choices"][0]["message"]["content"]
    finally:
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=20)
    assert server.returncode == 130
    assert b"Traceback" not in told
    ours = _ours(
        "generate", *flags, "--prompt", messages[0]["content"], "--max-tokens", 12
    )
    assert said.strip() == ours.strip()


def openai_style_client(base_url):
    """What programs do with a base URL."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path, body=None):
        kind = {"Content-Type": "application/json", "Authorization": "Bearer none"}
        raw = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base_url + path, raw, kind)
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    return ask
