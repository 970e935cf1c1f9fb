"""Cards and uploads: nothing private in any file, nothing unverified on the Hub."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import huggingface_hub
import pytest
from click.testing import CliRunner

from mlx_rsft import testing
from mlx_rsft.cli.main import group
from mlx_rsft.errors import CheckFailed, ConfigError, RunError
from mlx_rsft.export import EXPORTERS, card
from mlx_rsft.workflows import publish

SECRET, TOKEN = "zirconium", "hf_abcdefghijklmnop"


class Silent:
    def note(self, text):
        self.said = text


def model_with_a_merge(folder):
    """A tiny model whose byte tokenizer has one merge, since llama.cpp wants some."""
    ends = testing.VOCABULARY
    testing.write_tiny_model(folder, vocab_size=ends + 1, eos_token_id=ends)
    path = folder / "tokenizer.json"
    record = json.loads(path.read_text())
    record["model"]["vocab"]["th"] = len(record["model"]["vocab"])
    record["model"]["merges"] = [["t", "h"]]
    for token in record["added_tokens"]:
        token["id"] += 1
    path.write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A run on rows with a secret word, and what was exported of it, to every target."""
    home = tmp_path_factory.mktemp("published")
    tiny_folder = model_with_a_merge(home / "base")
    for split in ("train", "valid"):
        rows = [
            {"prompt": f"{SECRET} {n}", "completion": f"{SECRET} is {n}"}
            for n in range(6)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (home / "data").mkdir(exist_ok=True)
        (home / "data" / f"{split}.jsonl").write_text(text)
    run, out = home / "run", home / "out"
    common = ["--model", str(tiny_folder), "--data", str(home / "data")]
    train = ["train", *common, "--objective", "sft", "--steps", "2", "--layers", "all"]
    export = ["export", str(run), "--to", ",".join(EXPORTERS), "--out", str(out)]
    for command in ([*train, "--run-dir", str(run)], export):
        runner = CliRunner(env={"HF_TOKEN": TOKEN})
        done = runner.invoke(group, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    return out


def test_every_target_has_a_card_of_its_kind():
    assert card.KINDS.keys() == EXPORTERS.keys()


def test_a_card_tells_base_licence_data_and_intervals(exported):
    text = (exported / "fused" / "README.md").read_text()
    front = text.split("---\n")[1]
    assert "library_name: mlx\n" in front
    assert "base_model_relation: finetune\n" in front
    assert "# license: unknown: check\n" in front
    assert "pipeline_tag: text-generation\n" in front
    assert re.search(r"\| train \| 6 \| [1-9]\d+ \| [0-9a-f]{64} \|", text)
    assert re.search(r"\| valid \| 6 \| [1-9]\d+ \| [0-9a-f]{64} \|", text)
    assert "2 steps, " in text
    assert re.search(r"tested at one size: 0\.0 million parameters, 3 blocks", text)
    assert "| valid | nll | " in text
    assert "Side effects beside the task were not measured." in text
    assert "## Side effects" not in text
    assert "mlx-lm-model: max_difference" in text


def test_a_card_tells_what_changed_beside_the_task_and_what_the_bare_model_has():
    found = {"set": "harmful", "metric": "refusal", "base": 0.5, "value": 0.25}
    found |= {"low": 0.1, "high": 0.4, "unit": "fraction", "n": 18}
    drift = found | {"set": "general", "metric": "drift_kl", "base": None}
    story = card.Story({"effects": [found, drift]}, ())
    text = card.side_effects(story)
    assert "| harmful | refusal | 0.5 | 0.25 | 0.1 to 0.4 | fraction | 18 |" in text
    assert "| general | drift_kl | unknown | 0.25 |" in text
    assert "not measured" in card.side_effects(card.Story({}, ()))


def test_no_file_of_any_target_names_a_path_or_a_token_or_holds_a_row(exported):
    home = exported.parent
    found = [path for path in exported.rglob("*") if path.is_file()]
    targets = {path.relative_to(exported).parts[0] for path in found}
    assert targets == {*EXPORTERS, "export.json"}
    assert {path.name for path in found} >= {"README.md", "Modelfile", "model.gguf"}
    private = (SECRET, TOKEN, str(home), str(Path.home()), "/tmp/", home.name)
    for path in found:
        held = path.read_bytes()
        for word in private:
            assert word.encode() not in held, (path, word)


class Hub:
    """The contract of the two calls that are made; what they are given is kept."""

    calls: ClassVar[list] = []

    def create_repo(self, repository, *, private, exist_ok):
        self.calls.append((repository, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        names = sorted(p.name for p in Path(folder_path).rglob("*") if p.is_file())
        self.calls.append((repo_id, names))
        return SimpleNamespace(commit_url="https://hub/commit/1")


def test_what_is_uploaded_is_one_folder_into_a_private_repository(
    exported, monkeypatch
):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(Hub, "calls", [])
    entries = json.loads((exported / "export.json").read_text())
    entries = [entry for entry in entries if entry["target"] == "peft"]
    told = Silent()
    folder = publish.folder_of(exported, entries)
    where = publish.push("me/tuned", folder, entries, told, public=False)
    names = ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert Hub.calls == [("me/tuned", True, True), ("me/tuned", names)]
    assert where == "https://hub/commit/1"
    assert all(name in told.said for name in names)
    assert "private" in told.said


@pytest.mark.parametrize("verified", [[False], [None], [True, False]])
def test_nothing_unverified_is_uploaded(verified, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    entries = [{"verified": one} for one in verified]
    with pytest.raises(CheckFailed, match="Nothing is uploaded"):
        publish.push("me/tuned", tmp_path, entries, Silent(), public=False)


def test_a_hub_that_says_no_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)

    def refuse(self, repository, **options):
        raise OSError("401 Unauthorized")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(RunError, match="401 Unauthorized") as caught:
        publish.push("me/tuned", tmp_path, [{"verified": True}], Silent(), public=True)
    assert "hf auth login" in caught.value.hint


@pytest.mark.parametrize(
    ("repository", "targets", "verified", "message"),
    [
        ("tuned", ["peft"], True, "no repository"),
        ("me/tuned", ["peft", "mlx"], True, "2 targets"),
        ("me/tuned", ["peft"], False, "unverified"),
    ],
)
def test_a_push_that_cannot_be_is_refused_before_any_work(
    repository, targets, verified, message
):
    with pytest.raises(ConfigError, match=message):
        publish.check(repository, targets, verified=verified)
