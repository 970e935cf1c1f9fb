import http.server
import json
import shutil
import threading

import pytest

from mlx_rsft import hub, machine
from mlx_rsft.errors import MachineError
from mlx_rsft.workflows import doctor


def _topics(found):
    return {f.topic: f for f in found.findings}


def test_this_machine_and_a_sound_model_are_well(tiny_folder):
    found = doctor.examine(str(tiny_folder))
    assert not found.problems, [f for f in found.findings if f.level == "problem"]
    record = found.as_record()
    assert record["fine"]
    topics = _topics(found)
    assert topics["backend"].message.startswith(f"mlx computes on {machine.backend()}")
    assert "<|end|> (258)" in topics["end of turn"].message
    assert all(
        entry["remedy"] for entry in record["findings"] if entry["level"] != "fine"
    )


def test_a_missing_backend_is_told_with_the_rest(monkeypatch):
    def missing():
        raise MachineError("mlx cannot be loaded", hint="install mlx-rsft[cpu]")

    monkeypatch.setattr(machine, "device", missing)
    found = doctor.examine()
    assert _topics(found)["backend"].remedy == "install mlx-rsft[cpu]"
    assert "Hub cache" in _topics(found)


def test_a_template_whose_turns_never_end_is_a_problem(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    generation = folder / "generation_config.json"
    generation.write_text('{"eos_token_id": 256}')
    turn = _topics(doctor.examine(str(folder)))["end of turn"]
    assert turn.level == "note"  # the tokenizer alone knows that token 258 ends it
    assert turn.remedy.endswith("[256, 258]")
    known = json.loads((folder / "tokenizer_config.json").read_text())
    changed = json.dumps({**known, "eos_token": "<|pad|>"})
    (folder / "tokenizer_config.json").write_text(changed)
    turn = _topics(doctor.examine(str(folder)))["end of turn"]
    assert turn.level == "problem"
    assert "<|pad|> (256)" in turn.message
    assert "generation_config.json" in turn.remedy
    generation.write_text('{"eos_token_id": [256, 258]}')
    assert _topics(doctor.examine(str(folder)))["end of turn"].level == "fine"
    (folder / "chat_template.jinja").unlink()
    assert _topics(doctor.examine(str(folder)))["chat template"].level == "note"


@pytest.mark.parametrize(
    ("name", "level"), [("no/such-model", "note"), ("nonesuch", "problem")]
)
def test_a_model_that_is_not_here_is_not_fetched(name, level, monkeypatch):
    def fetch(*args, **options):
        raise AssertionError("doctor asked the Hub")

    monkeypatch.setattr(hub, "folder", fetch)
    assert _topics(doctor.examine(name))["model"].level == level


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_the_hub_is_asked_only_when_told_to_and_any_answer_is_one(monkeypatch):
    server = http.server.HTTPServer(("127.0.0.1", 0), _Answering)
    there = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert hub.unreachable(there) == ""
    thread.join()
    server.server_close()
    assert "refused" in hub.unreachable(there)
    state = hub.State(there, hub.state().cache, offline=False)
    monkeypatch.setattr(hub, "state", lambda: state)
    assert "Hub online" not in _topics(doctor.examine())
    assert _topics(doctor.examine(online=True))["Hub online"].level == "problem"
