import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_rsft.cli import console
from mlx_rsft.cli.main import COMMANDS

from .conftest import processed, run, started, words

EVERY_HELP = [
    [],
    *[[name] for name in COMMANDS],
    ["data", "check"],
    ["data", "show"],
    ["data", "split"],
    ["data", "fix"],
    ["data", "demo"],
    ["objectives", "show"],
    ["watch", "freeze"],
    ["watch", "score"],
    ["audit", "show"],
    ["audit", "verify"],
    ["audit", "rerun"],
    ["audit", "explain"],
]
GROUPS = (["data"], ["objectives"], ["watch"], ["audit"])


def _train(run_dir, model, data, *more, by=run):
    return by(
        *("train", "--model", model, "--data", data, "--run-dir", run_dir),
        *("--objective", "dft:floor=0.1", "--layers", "last:2", "--steps", 3, *more),
    )


def _lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("command", EVERY_HELP)
def test_help_answers_at_once_with_an_example_and_without_the_model_libraries(command):
    code = (
        "import sys\n"
        "from mlx_rsft.cli.main import main\n"
        "try:\n    main([*sys.argv[1:], '--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'mlx_lm', 'transformers', 'huggingface_hub', 'gguf'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    seconds = []
    for _ in range(5):
        began = _seconds_of_children()
        ran = subprocess.run(
            [sys.executable, "-c", code, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds.append(_seconds_of_children() - began)
        assert ran.returncode == 0, ran.stderr
        if seconds[-1] < 0.3:
            break
    assert command in GROUPS or "mlx-rsft" in ran.stdout.split("Options")[1]
    assert min(seconds) < 0.3


def _seconds_of_children():
    """Of a core; other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_a_run_leaves_what_the_contract_says(tmp_path, tiny_folder, tiny_data):
    folder = tmp_path / "run"
    ran = _train(folder, tiny_folder, tiny_data, "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["steps"] == 3
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "manifest.json",
        "steps.jsonl",
        "evals.jsonl",
        "weights.jsonl",
        "rows.jsonl",
        "rows.salt",
        "audit.jsonl",
        "checkpoints",
        "adapter",
        ".lock",
    }
    steps = _lines(folder / "steps.jsonl")
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert steps[0]["loss"] < steps[0]["nll"]
    assert {"metric", "split", "value", "unit", "n", "stderr"} <= set(
        _lines(folder / "evals.jsonl")[0]
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["objective"] == {"name": "dft", "floor": 0.1}
    assert set(manifest["data"]["splits"]) == {"train", "valid"}
    config = (folder / "config.toml").read_text()
    assert "floor = 0.1  # flag" in config
    assert "rank = 8  # default" in config


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(
    tmp_path, tiny_folder, tiny_data
):
    adapters = []
    # One in a process of its own, where sets are in another order.
    for name, seed, by in (("a", 1, run), ("b", 1, processed), ("c", 2, run)):
        flags = (tiny_folder, tiny_data, "--seed", seed)
        ran = _train(tmp_path / name, *flags, by=by)
        assert ran.returncode == 0, ran.stderr
        adapters.append((tmp_path / name / "adapter/adapters.safetensors").read_bytes())
    assert adapters[0] == adapters[1]
    assert adapters[0] != adapters[2]


def test_eval_reports_every_test_split_with_intervals(tiny_folder, tiny_data):
    ran = run("eval", "--model", tiny_folder, "--data", tiny_data, "--json")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert set(record) == {"model", "adapter", "splits"}
    assert set(record["splits"]) == {"test", "shifted"}
    metrics = record["splits"]["shifted"]["metrics"]
    assert set(metrics) == {"nll", "perplexity", "token_accuracy", "exact_match"}
    assert set(metrics["nll"]) == {"value", "unit", "n", "stderr", "low", "high"}


def test_eval_with_an_adapter_differs_from_the_bare_model(
    tmp_path, tiny_folder, tiny_data
):
    assert _train(tmp_path / "r", tiny_folder, tiny_data).returncode == 0
    where = ["--model", tiny_folder, "--data", tiny_data, "--metrics", "nll", "--json"]
    bare = json.loads(run("eval", *where).stdout)
    tuned = run("eval", *where, "--adapter", tmp_path / "r" / "adapter")
    assert json.loads(tuned.stdout)["splits"] != bare["splits"]


def test_generate_reads_a_prompt_from_stdin(tiny_folder):
    flags = ["--model", tiny_folder, "--max-tokens", 4, "--json"]
    typed = run("generate", *flags, "--prompt", "hi")
    piped = run("generate", *flags, "--prompt", "-", stdin="hi")
    assert json.loads(typed.stdout) == json.loads(piped.stdout)


def test_a_dry_run_counts_and_writes_nothing(tmp_path, tiny_folder, tiny_data):
    ran = _train(tmp_path / "r", tiny_folder, tiny_data, "--dry-run", "--json")
    plan = json.loads(ran.stdout)
    assert (plan["rows"], plan["steps"]) == (20, 3)
    assert plan["supervised_tokens"] < plan["tokens"]
    assert list(tmp_path.iterdir()) == []


def test_a_flag_outranks_set_and_both_outrank_the_file(
    tmp_path, tiny_folder, tiny_data
):
    file = tmp_path / "a.toml"
    file.write_text('[adapter]\nrank = 2\nscale = 2.0\nlayers = "all"\n')
    flags = ["--config", file, "--set", "adapter.scale=3", "--rank", 8]
    ran = _train(tmp_path / "r", tiny_folder, tiny_data, *flags)
    assert ran.returncode == 0, ran.stderr
    config = (tmp_path / "r" / "config.toml").read_text()
    assert "rank = 8  # flag" in config
    assert "scale = 3.0  # --set" in config
    assert 'layers = "last:2"  # flag' in config


def test_how_a_run_trained_is_kept_in_its_configuration(
    tmp_path, tiny_folder, tiny_data
):
    flags = ["--method", "dora", "--keys", "mlp.up_proj,mlp.down_proj", "--rslora"]
    flags += ["--optimizer", "muon", "--schedule", "wsd", "--decay", 0.5]
    flags += ["--lora-plus", 4, "--set", "optimizer.momentum=0.9"]
    ran = _train(tmp_path / "r", tiny_folder, tiny_data, *flags)
    assert ran.returncode == 0, ran.stderr
    config = (tmp_path / "r" / "config.toml").read_text()
    for line in (
        'method = "dora"  # flag',
        'keys = ["mlp.up_proj", "mlp.down_proj"]  # flag',
        "rslora = true  # flag",
        'name = "muon"  # flag',
        "momentum = 0.9  # --set",
        "lora_plus = 4.0  # flag",
        'quantize = "none"  # default',
    ):
        assert line in config
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert manifest["model"]["quantised"] == {}
    scored = ["eval", "--model", tiny_folder, "--data", tiny_data, "--json"]
    assert run(*scored, "--adapter", tmp_path / "r" / "adapter").returncode == 0


GOOD = '{"prompt": "q", "completion": "a"}\n'


@pytest.fixture
def bad(tmp_path, tiny_folder):
    """Files that are wrong in one way each, by name."""
    files = {
        "empty": "",
        "broken": GOOD * 16 + '{"prompt": "q", \n' + GOOD,
        "silent": GOOD * 4
        + '{"messages": [{"role": "user", "content": "q"}]}\n'
        + GOOD,
        "long": GOOD * 2 + json.dumps({"prompt": "x" * 300, "completion": "a"}) + "\n",
        "good": GOOD,
    }
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((tiny_folder / "config.json").read_text())
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--data": "gone.jsonl"}, "gone.jsonl: There is no such file"),
        ({"--data": "empty.jsonl"}, "empty.jsonl: The file holds no rows"),
        ({"--data": "broken.jsonl"}, "broken.jsonl:17: Not valid JSON"),
        ({"--data": "silent.jsonl"}, "silent.jsonl:5: The last message is from"),
        ({"--data": "long.jsonl", "--max-length": "128"}, "long.jsonl:3: The row has"),
        ({"--schedule": "cosin"}, "'cosin'"),
        ({"--objective": "dtf"}, "Did you mean 'dft'"),
        ({"--objective": "dft:where=hard"}, "No training row has the tag"),
        ({"--objective": "auto:floor=0.1"}, "auto"),
        ({"--layers": "last:9"}, "has 3"),
        ({"--keys": "q_proj"}, "Did you mean 'self_attn.q_proj'"),
        ({"--method": "full", "--rank": "4"}, "Full fine-tuning has no"),
        ({"--optimizer": "adam", "--weight-decay": "0.1"}, "adam takes no weight"),
        ({"--set": "optimizer.momentum=0.9"}, "adamw takes no momentum"),
        ({"--quantize": "4"}, "none can be quantised"),
        ({"--quantize": "3"}, "'3'"),
        ({"--rank": "x"}, "--rank"),
        ({"--epochs": "1"}, "Both steps and epochs"),
        ({"--no-such-flag": "1"}, "--no-such-flag"),
        ({"--set": "adapter.rnk=1"}, "Did you mean 'adapter.rank'"),
        ({"--run-dir": "good.jsonl/run"}, "good.jsonl"),
        ({"--model": "bare"}, "no tokenizer"),
        ({"--model": "nonesuch"}, "nonesuch"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_one_clear_message_and_nothing_is_written(
    bad, tiny_folder, changes, said, as_json
):
    flags = {
        "--model": tiny_folder,
        "--data": "good.jsonl",
        "--objective": "sft",
        "--run-dir": "run",
        "--steps": "2",
        "--layers": "last:1",
        **changes,
    }
    before = sorted(bad.rglob("*"))
    given = [word for pair in flags.items() for word in pair]
    ran = run("train", *given, *(["--json"] if as_json else []), cwd=bad)
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr + ran.stdout
    assert sorted(bad.rglob("*")) == before
    if as_json:
        error = json.loads(ran.stdout)["error"]
        assert set(error) == {"kind", "message", "where", "hint"}
        assert said.split(": ")[-1] in f"{error['message']} {error['hint']} {error}"
    else:
        assert said in ran.stderr
        assert ran.stdout == ""


def test_a_run_directory_that_may_not_be_written_is_refused(bad, tiny_folder):
    closed = bad / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):  # the superuser may write anywhere but there
        closed = Path("/proc/self")
    ran = _train(closed / "run", tiny_folder, bad / "good.jsonl")
    assert ran.returncode == 2
    assert "cannot be written" in ran.stderr


def test_auto_is_the_default_and_falls_back_to_sft_where_the_prior_is_weak(
    tmp_path, tiny_folder, tiny_data
):
    folder = tmp_path / "run"
    flags = ["--model", tiny_folder, "--data", tiny_data, "--run-dir", folder]
    ran = run("train", *flags, "--layers", "last:1", "--steps", 2)
    assert ran.returncode == 0, ran.stderr
    assert "plain SFT" in ran.stderr
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["objective"] == {"name": "sft"}
    assert manifest["probe"]["mean_p"] < 0.1
    assert manifest["probe"]["rows"] == 20
    assert manifest["probe"]["objective"] == "sft"
    assert 'name = "sft"  # auto' in (folder / "config.toml").read_text()


def test_data_check_reports_everything_at_once_and_says_no(tmp_path, tiny_folder):
    (tmp_path / "train.jsonl").write_text(
        GOOD + GOOD + '{"prompt": "q", "completion": "b"}\n{"prompt": \n'
        '{"prompt": "Line 3 stops!", "completion": "c"}\n'
        + json.dumps({"prompt": "x" * 300, "completion": "long"})
    )
    (tmp_path / "test.jsonl").write_text(
        '{"prompt": "line 3 stops", "completion": "c"}\n' + GOOD
    )
    flags = ["--model", tiny_folder, "--max-length", 128]
    ran = run("data", "check", tmp_path, *flags, "--json")
    assert ran.returncode == 3, ran.stderr
    report = json.loads(ran.stdout)
    assert report["counts"] == {
        "malformed": 1,
        "too long": 1,
        "duplicate": 1,
        "contradiction": 1,
        "near leak": 1,
        "leak": 1,
    }
    places = {f["kind"]: f["where"].rsplit("/")[-1] for f in report["findings"]}
    assert places["malformed"] == "train.jsonl:4"
    assert places["contradiction"] == "train.jsonl:3"
    assert places["leak"] == "test.jsonl:2"
    assert places["near leak"] == "test.jsonl:1"
    assert report["splits"]["train"]["rows"] == 5
    assert report["splits"]["train"]["supervised"] > 0
    said = run("data", "check", tmp_path)
    assert said.returncode == 3
    assert "train.jsonl:4: malformed" in said.stdout


def test_data_check_of_clean_data_says_yes(tiny_data):
    ran = run("data", "check", tiny_data / "train.jsonl")
    assert ran.returncode == 0, ran.stdout
    assert "0 findings" in ran.stdout


def test_repeats_alone_are_no_harm(tmp_path):
    (tmp_path / "train.jsonl").write_text(GOOD + GOOD)
    ran = run("data", "check", tmp_path, "--json")
    assert ran.returncode == 0
    assert json.loads(ran.stdout)["counts"] == {"duplicate": 1}


def test_data_show_marks_what_is_trained(tmp_path, tiny_folder):
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "hi", "completion": "ok"}\n')
    flags = ["data", "show", file, "--model", tiny_folder]
    shown = json.loads(run(*flags, "--json").stdout)
    (example,) = shown["examples"]
    trained = "".join(t["text"] for t in example["tokens"] if t["trained"])
    assert trained == "ok<|end|>"
    assert shown["where"] == f"{file}:1"
    assert "[o][k][<|end|>]" in run(*flags).stdout
    assert "[o(" in run(*flags, "--ids").stdout
    page = tmp_path / "row.html"
    ran = run(*flags, "--html", page, "--template", "plain", "--json")
    texts = [t["text"] for t in json.loads(ran.stdout)["examples"][0]["tokens"]]
    assert "".join(texts) == "hi\n\nok<|end|>"
    assert '<span class="on special"' in page.read_text()
    beyond = run(*flags, "--row", 2)
    assert beyond.returncode == 2
    assert "1 rows" in beyond.stderr


def test_every_objective_is_listed_and_plotted():
    listed = json.loads(run("objectives", "--json").stdout)["objectives"]
    assert {"sft", "dft", "eaft", "gem"} <= set(listed)
    assert "arXiv:2508.05629" in run("objectives").stdout
    shown = json.loads(run("objectives", "show", "dft:floor=0.1", "--json").stdout)
    points = shown["points"]
    assert points[0]["weight"] == pytest.approx(0.1)
    assert all(p["push"] == pytest.approx(p["weight"] * (1 - p["p"])) for p in points)
    plot = run("objectives", "show", "dft").stdout
    assert plot.count("█") > 100
    assert run("objectives", "show", "dtf").returncode == 2


@pytest.mark.parametrize("command", ["trian", "evla"])
def test_a_mistyped_command_is_answered_with_the_nearest(command):
    ran = run(command)
    assert ran.returncode == 2
    assert "Did you mean" in ran.stderr


def test_missing_flags_are_asked_for_by_name():
    ran = run("train", "--run-dir", "x", "--objective", "sft")
    assert ran.returncode == 2
    assert "--model" in ran.stderr
    assert "--data" in ran.stderr
    ran = run("eval")
    assert "--data" in ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_saves_the_adapter_and_ends_with_130(tmp_path, tiny_folder, tiny_data):
    folder = tmp_path / "run"
    flags = ["--model", tiny_folder, "--data", tiny_data, "--objective", "sft"]
    flags += ["--run-dir", folder, "--layers", "all", "--steps", 100_000]
    process = started("train", *flags, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "steps.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped after" in said
    assert "Traceback" not in said
    steps = _lines(folder / "steps.jsonl")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["interrupted"] is True
    assert manifest["finished"] is None
    assert manifest["result"]["steps"] == len(steps)
    tuned = run(
        *("eval", "--model", tiny_folder, "--adapter", folder / "adapter"),
        *("--data", tiny_data, "--metrics", "nll"),
    )
    assert tuned.returncode == 0, tuned.stderr


def test_a_reader_that_leaves_is_no_error(tiny_folder, tiny_data):
    evaluated = words("eval", "--model", tiny_folder, "--data", tiny_data, "--json")
    command = f"{shlex.join(evaluated)} | head -c 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False
    )
    assert ran.stdout.endswith("0\n")
    assert "Traceback" not in ran.stderr
    assert "BrokenPipe" not in ran.stderr


def test_generate_answers_a_file_and_says_how_many(tmp_path, tiny_folder):
    (tmp_path / "asked.csv").write_text("question\nhi\nho\n")
    flags = ["--model", tiny_folder, "--max-tokens", 4, "--map", "question=prompt"]
    where = ["--in", "asked.csv", "--out", "answers.jsonl"]
    ran = run("generate", *flags, *where, "--json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["rows"] == 2
    assert len(_lines(tmp_path / "answers.jsonl")) == 2
    for wrong in (["--in", "asked.csv"], [*where, "--prompt", "a"], []):
        refused = run("generate", *flags, *wrong, cwd=tmp_path)
        assert refused.returncode == 2
        assert "--in" in refused.stderr


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (MemoryError("std::bad_alloc"), 2, "Memory ran out (std::bad_alloc)"),
        (RuntimeError("[malloc] Unable to allocate 9 bytes."), 2, "Memory ran out"),
        (OSError(28, "No space left on device", "/x/y"), 2, "/x/y: A file cannot be"),
        (OSError(30, "Read-only file system", "/x/y"), 2, "name a place that can be"),
        (RuntimeError("shapes differ"), 1, "This is a bug"),
        (OSError(2, "No such file", "/x/y"), 1, "This is a bug"),
    ],
)
def test_what_the_machine_does_to_a_command_is_told_from_a_bug(
    problem, code, said, monkeypatch
):
    def fail(*_, **__):
        raise problem

    monkeypatch.setattr(console, "table", fail)
    ran = run("metrics")
    assert ran.returncode == code
    assert said in ran.stderr
    assert ("Traceback" in ran.stderr) == (code == 1)
