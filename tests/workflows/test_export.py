import json
import shutil
import subprocess
import sys

import mlx.core as mx
import pytest

from mlx_rsft import config
from mlx_rsft.cli import main
from mlx_rsft.errors import CheckFailed, ConfigError, DataError, ModelError
from mlx_rsft.export import gguf_lora
from mlx_rsft.export.product import Choices
from mlx_rsft.models import adapters, load
from mlx_rsft.settings import ModelSettings
from mlx_rsft.workflows import (
    answering,
    chat,
    evaluate,
    export,
    generate,
    serve,
    train,
)
from mlx_rsft.workflows.reporter import Silent

KEYS = {
    *("target", "path", "reader", "verified", "max_difference", "tolerance", "unit"),
    "greedy_agreement",
}


def _settings(**given):
    values = {name.replace("__", "."): value for name, value in given.items()}
    return config.resolve([config.Layer(config.FLAG, values)])


def _export(adapter, targets, out, choices=None, *, verified=True, **given):
    resolved = _settings(**given)
    return export.export(
        resolved,
        adapter,
        targets,
        out,
        choices or Choices(),
        Silent(),
        verified=verified,
    )


@pytest.fixture(scope="module")
def run(tiny_folder, tiny_data, tmp_path_factory):
    """A run of a few steps whose adapter has an effect."""
    where = tmp_path_factory.mktemp("runs") / "secret-run"
    resolved = _settings(
        model__source=str(tiny_folder),
        data__source=str(tiny_data),
        objective__name="sft",
        training__steps=3,
        optimizer__learning_rate=0.05,
        adapter__layers="last:2",
    )
    job = train.prepare(resolved, where, Silent())
    train.train(job, where, Silent())
    return where


def test_a_run_says_itself_which_model_and_rows_are_its_own(run, tmp_path):
    entries = _export(run, ["mlx", "peft", "gguf"], tmp_path / "out")
    assert entries == json.loads((tmp_path / "out" / "export.json").read_text())
    assert all(entry.keys() >= KEYS for entry in entries)
    asked = [e for e in entries if e["verified"] is not None]
    assert {e["reader"] for e in asked} == {"mlx-lm", "mlx-rsft", "peft", "gguf"}
    assert all(e["verified"] and e["greedy_agreement"] == 1 for e in asked)
    # 4 prompts of 16 tokens at most, and the answers of 4 rows of the valid split
    bare = _export(run / "adapter", ["mlx"], tmp_path / "bare")
    assert bare[0]["places"] == asked[0]["places"] > 4
    (skipped,) = [e for e in entries if e["verified"] is None]
    assert skipped["reader"] == "llama.cpp"
    assert "needs the base model as a .gguf file" in skipped["note"]


def test_no_file_names_a_path_a_token_or_a_row(run, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    _export(run, ["mlx", "peft", "gguf"], tmp_path / "out")
    rows = (tiny_data / "valid.jsonl").read_text().splitlines()
    said = [json.loads(row)["prompt"] for row in rows]
    private = [b"/tmp", b"/home", b"/root", b"secret-run", b"hf_abc", str(tmp_path)]
    private += [*said, str(tiny_data)]
    for path in (tmp_path / "out").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for word in private:
            assert (word if isinstance(word, bytes) else word.encode()) not in content


def test_a_wrong_product_is_said_to_be_wrong_and_is_still_there(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr(gguf_lora, "moved", lambda b, *_: 2 * b)
    entries = _export(run, ["gguf"], tmp_path / "out")
    assert entries[0]["verified"] is False
    assert (tmp_path / "out" / "gguf" / "adapter-f32.gguf").exists()
    with pytest.raises(CheckFailed, match="otherwise than the live model"):
        export.raise_unless_verified(entries, tmp_path / "out")


def test_the_command_ends_with_3_where_a_reader_differs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_lora, "moved", lambda b, *_: 2 * b)
    for extra in ([], ["--json"]):
        out = str(tmp_path / f"out{len(extra)}")
        with pytest.raises(SystemExit) as ended:
            main.main(["export", str(run), "--to", "mlx,gguf", "--out", out, *extra])
        assert ended.value.code == 3


def test_a_target_refused_late_takes_no_verified_one_with_it(run, tmp_path, capsys):
    out = tmp_path / "out"
    # Nothing can be quantised as the base is, for that is not.
    entries = _export(run, ["mlx", "fused", "peft"], out, Choices(requantize=True))
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "mlx", "peft"]
    assert json.loads((out / "export.json").read_text()) == entries
    (refused,) = [entry for entry in entries if entry["path"] is None]
    assert refused.keys() >= KEYS
    assert refused["target"] == "fused"
    assert refused["verified"] is refused["reader"] is None
    assert refused["refused"]["kind"] == "config"
    assert "refused: " in refused["note"]
    kept = [entry for entry in entries if entry["path"]]
    assert {entry["target"] for entry in kept} == {"mlx", "peft"}
    assert all(entry["verified"] for entry in kept)
    with pytest.raises(ConfigError, match="fused was not made: "):
        export.raise_unless_verified(entries, out)
    for extra in ([], ["--json"]):
        where = str(tmp_path / f"out{len(extra)}")
        asked = ["export", str(run), "--to", "mlx,fused", "--requantize"]
        with pytest.raises(SystemExit) as ended:
            main.main([*asked, "--out", where, *extra])
        assert ended.value.code == ConfigError.exit_code
    told = json.loads(capsys.readouterr().out.partition("\n[")[2].join(["[", ""]))
    assert [entry["path"] for entry in told if entry["target"] == "fused"] == [None]
    with pytest.raises(ConfigError, match="quantise"):
        _export(run, ["fused"], tmp_path / "none", Choices(requantize=True))
    assert not (tmp_path / "none").exists()


def test_what_a_check_refused_decides_the_exit_code(run, tmp_path, monkeypatch):
    problem = CheckFailed("it takes the adapter away", where="--requantize")

    def erased(live, folder, choices):
        (folder / "half.safetensors").write_bytes(b"half")
        raise problem

    losing = export.EXPORTERS["fused"]._replace(write=erased)
    monkeypatch.setitem(export.EXPORTERS, "fused", losing)
    entries = _export(run, ["fused", "mlx"], tmp_path / "out")
    assert not (tmp_path / "out" / "fused").exists()
    assert entries[0]["refused"]["message"] == problem.message
    assert [e["verified"] for e in entries[1:]] == [True]
    assert export.ends_with(entries) == CheckFailed.exit_code
    with pytest.raises(CheckFailed, match="fused was not made: it takes"):
        export.raise_unless_verified(entries, tmp_path / "out")


def test_a_product_that_its_reader_cannot_open_is_not_verified(
    run, tmp_path, monkeypatch
):
    whole = export.EXPORTERS["peft"]

    def damaged(live, folder, choices):
        product = whole.write(live, folder, choices)
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:99])
        return product

    bad = whole._replace(write=damaged, readers=("mlx-rsft",))
    monkeypatch.setitem(export.EXPORTERS, "peft", bad)
    entries = _export(run, ["peft", "gguf"], tmp_path / "out")
    assert entries[0]["verified"] is False
    assert entries[1]["verified"] is True
    with pytest.raises(CheckFailed, match="mlx-rsft does not read"):
        export.raise_unless_verified(entries, tmp_path / "out")


def test_a_flag_that_changes_nothing_is_refused(run, tmp_path, capsys):
    for flag in (["--requantize"], ["--gguf-type", "f16"], ["--dora-as-lora", "4"]):
        asked = ["export", str(run), "--to", "mlx,peft", "--out", str(tmp_path / "out")]
        with pytest.raises(SystemExit) as ended:
            main.main([*asked, *flag])
        assert ended.value.code == ConfigError.exit_code
        assert f"{flag[0]}: It changes nothing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_adapter_is_refused_before_a_model_is_loaded(
    run, tmp_path, monkeypatch
):
    broken = tmp_path / "broken"
    shutil.copytree(run / "adapter", broken)
    (broken / "adapters.safetensors").write_bytes(b"\0\0\0\0\0\0\0\x10{}")

    def never(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(load, "load", never)
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "Hi", "completion": "Ho"}\n')
    settings = _settings(model__source="demo", data__source=str(asked))
    job = answering.Job(asked, tmp_path / "out.jsonl")
    for use in (
        lambda: evaluate.evaluate(settings, broken, Silent()),
        lambda: generate.generate(settings, broken, "Hi", Silent()),
        lambda: answering.answer_file(settings, broken, job, Silent()),
        lambda: chat.chat(settings, broken, chat.Manner(), Silent()),
        lambda: serve.serve(settings, broken, serve.Manner(port=0), Silent()),
        lambda: _export(broken, ["mlx"], tmp_path / "out", model__source="demo"),
    ):
        with pytest.raises(ModelError, match="no whole safetensors file"):
            use()


def test_what_is_not_verified_says_so(run, tmp_path):
    (entry,) = _export(run, ["peft"], tmp_path / "out", verified=False)
    assert entry["verified"] is entry["reader"] is None
    assert "--no-verify" in entry["note"]


def test_an_adapter_of_peft_goes_on_as_one_of_mlx_lm(run, tiny_folder, tmp_path):
    _export(run, ["peft"], tmp_path / "a", verified=False)
    given = {"model__source": str(tiny_folder)}
    (entry,) = _export(tmp_path / "a" / "peft", ["mlx"], tmp_path / "b", **given)
    assert entry["verified"]
    tokens = mx.arange(12)[None]
    found = []
    for folder in (run / "adapter", tmp_path / "b" / "mlx"):
        model = load.load(ModelSettings(source=str(tiny_folder))).model
        adapters.load(model, folder)
        found.append(model(tokens))
    assert mx.allclose(*found, atol=1e-4).item()


def test_nothing_is_left_of_what_was_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="no target 'peftt'"):
        _export(run, ["peftt"], tmp_path / "out")
    with pytest.raises(ModelError, match="no adapter"):
        _export(tmp_path / "gone", ["mlx"], tmp_path / "out")
    with pytest.raises(DataError):
        _export(run, ["mlx"], tmp_path / "out", data__source=str(tmp_path / "gone"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConfigError, match="something already"):
        _export(run, ["mlx"], tmp_path / "out")


def test_a_run_whose_rows_are_gone_is_still_compared(run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    text = (moved / "config.toml").read_text()
    lines = text.splitlines()
    at = lines.index("[data]")
    lines[at + 1] = 'source = "gone"'
    (moved / "config.toml").write_text("\n".join(lines))
    (entry,) = _export(moved, ["mlx"], tmp_path / "out")
    assert entry["verified"]


@pytest.mark.parametrize("kind", ["mlx", "peft"])
def test_training_goes_on_from_an_adapter(run, tiny_folder, tiny_data, tmp_path, kind):
    _export(run, [kind], tmp_path / "out", verified=False)
    given = {
        "model__source": str(tiny_folder),
        "data__source": str(tiny_data),
        "objective__name": "sft",
        "adapter__init": str(tmp_path / "out" / kind),
        "training__steps": 1,
    }
    job = train.prepare(_settings(**given), tmp_path / "run", Silent())
    tokens = mx.arange(12)[None]
    model = load.load(ModelSettings(source=str(tiny_folder))).model
    adapters.load(model, run / "adapter")
    assert mx.allclose(job.loaded.model(tokens), model(tokens), atol=1e-4).item()
    assert job.resolved.config.adapter.layers in ("last:2", "1-2")
    train.train(job, tmp_path / "run", Silent())
    card = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert len(card["model"]["init"]["sha256"]) == 1
    for name, value in (("rank", 4), ("scale", 1.0), ("keys", "mlp.up_proj")):
        with pytest.raises(ConfigError, match=f"{name} comes with the adapter"):
            train.prepare(
                _settings(**given, **{f"adapter__{name}": value}),
                tmp_path / "other",
                Silent(),
            )


def test_programs_are_asked_by_name(run):
    answers = export.check(_settings(), run, ["all"], Silent())
    assert {a.stack for a in answers if not a.accepted} == {"lmstudio", "ollama"}
    (ollama,) = [a for a in answers if a.stack == "ollama"]
    assert "refuses ADAPTER" in ollama.reason
    assert ollama.target == "ollama"
    with pytest.raises(ConfigError, match="lm-studio"):
        export.check(_settings(), run, ["lm-studio"], Silent())


def test_an_adapter_of_stock_mlx_lm_is_exported_like_ours(
    tiny_folder, tiny_data, tmp_path
):
    adapter = tmp_path / "stock"
    where = ("--model", tiny_folder, "--data", tiny_data, "--adapter-path", adapter)
    how = ("--iters", 2, "--batch-size", 1, "--num-layers", 2, "--learning-rate", 0.01)
    command = [sys.executable, "-m", "mlx_lm", "lora", "--train", *where, *how]
    ran = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert str(tiny_folder) in (adapter / "adapter_config.json").read_text()
    entries = _export(adapter, ["mlx", "peft", "gguf"], tmp_path / "out")
    assert [e["verified"] for e in entries] == [True, True, True, True, None]
    for path in (tmp_path / "out").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert str(tiny_folder) not in path.read_text()
