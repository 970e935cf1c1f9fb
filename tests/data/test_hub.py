"""Data sets of the Hub, from a server on this machine that answers as the Hub does."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlx_rsft.data import hub
from mlx_rsft.errors import DataError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"


def _rows(*names):
    return "".join(f'{{"prompt": "{n}", "completion": "a"}}\n' for n in names).encode()


def _card(configs):
    return f"---\nlicense: mit\nconfigs:\n{configs}---\n# Data\n".encode()


CARD = _card(
    "- config_name: default\n  data_files:\n"
    "  - split: train\n    path: parts/a-*.jsonl\n"
    "  - split: validation\n    path: [parts/v.jsonl]\n"
    "- config_name: other\n  data_files: other.jsonl\n"
)
REPOSITORIES = {
    "me/carded": {
        "README.md": CARD,
        "parts/a-1.jsonl": _rows("q1"),
        "parts/a-2.jsonl": _rows("q2", "q3"),
        "parts/v.jsonl": _rows("q4"),
        "other.jsonl": _rows("q5"),
        "huge.bin": b"x" * 9999,
    },
    "me/named": {
        "README.md": b"# No configs\n",
        "data/train-00000-of-00002.jsonl": _rows("q1"),
        "data/train-00001-of-00002.jsonl": _rows("q2"),
        "data/test-00000-of-00001.jsonl": _rows("q3"),
    },
    "me/alone": {"README.md": b"", "alpaca_data.json": b"[" + _rows("q1") + b"]"},
    "me/several": {
        "README.md": _card(
            "- config_name: a\n  data_files: a.jsonl\n"
            "- config_name: b\n  data_files: b.jsonl\n"
        ),
        "a.jsonl": _rows("q1"),
        "b.jsonl": _rows("q2", "q3"),
    },
    "me/outside": {
        "README.md": _card("- config_name: x\n  data_files: ../../../*\n"),
        "a.jsonl": _rows("q1"),
    },
    "me/unnamed": {"README.md": b"", "a.jsonl": b"{}", "b.jsonl": b"{}"},
    "me/gated": {"README.md": b"", "train.jsonl": _rows("q1")},
}


class _Hub(BaseHTTPRequestHandler):
    """The few addresses of the Hub that fetching a data set asks for."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        self.server.asked.append(self.path)
        found = re.fullmatch(
            r"/(?:api/)?datasets/([^/]+/[^/]+)/(revision|tree|resolve)/([^/?]+)"
            r"(?:/([^?]*))?(?:\?.*)?",
            self.path,
        )
        files = REPOSITORIES.get(found[1]) if found else None
        if files is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        token = self.headers.get("Authorization", "")
        if found[1] == "me/gated" and token != f"Bearer {TOKEN}":
            return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if found[3] not in ("main", "old", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if found[2] == "revision":
            return self._json({"id": found[1], "sha": COMMIT, "siblings": []})
        if found[2] == "tree":
            return self._json(
                [
                    {"type": "file", "path": p, "size": len(c), "oid": _oid(c)}
                    for p, c in files.items()
                ]
            )
        content = files[found[4]]
        marks = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": COMMIT}
        return self._send(200, content, marks)

    def _json(self, value):
        kind = {"Content-Type": "application/json"}
        self._send(200, json.dumps(value).encode(), kind)

    def _send(self, status, content, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


def _oid(content):
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def check(server, tmp_path):
    """Run ``data check`` on an address; the exit code, and what it printed."""

    def run(place, **environment):
        settings = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        ran = subprocess.run(
            [sys.executable, "-m", "mlx_rsft", "data", "check", place, "--json"],
            capture_output=True,
            text=True,
            env=settings,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in ran.stderr
        return ran.returncode, json.loads(ran.stdout)

    return run


def _sizes(answer):
    code, report = answer
    assert code == 0, report
    return {name: split["rows"] for name, split in report["splits"].items()}


def test_the_card_says_which_files_are_which_split_and_no_others_are_fetched(
    check, server
):
    server.asked.clear()
    assert _sizes(check("hf:me/carded")) == {"train": 3, "valid": 1}
    asked = [path for path in server.asked if "/revision/" in path]
    assert len(asked) == 1, "card and data could be of different commits"
    assert not [path for path in server.asked if "huge" in path or "other" in path]
    assert _sizes(check("hf:me/carded@old:validation")) == {"valid": 1}
    assert _sizes(check("hf:me/carded:other/train")) == {"train": 1}


def test_without_a_card_the_names_say_it_and_a_file_alone_is_train(check):
    assert _sizes(check("hf:me/named")) == {"train": 2, "test": 1}
    assert _sizes(check("hf:me/alone")) == {"train": 1}


def test_what_was_fetched_once_is_read_without_the_network(check):
    wanted = _sizes(check("hf:me/carded"))
    assert _sizes(check("hf:me/carded", HF_HUB_OFFLINE="1")) == wanted
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert _sizes(check("hf:me/carded", **nowhere)) == wanted


@pytest.mark.parametrize(
    ("place", "environment", "said"),
    [
        ("hf:me/gone", {}, "Hub does not hand the dataset out.*Check the name"),
        ("hf:me/gated", {}, "does not hand.*hf auth login"),
        ("hf:me/carded@never", {}, "does not hand"),
        ("hf:me/carded:far", {}, "no split 'far'.*Known: train, valid"),
        ("hf:me/several", {}, "several configurations.*:CONFIG/SPLIT; known: a, b"),
        ("hf:me/several:c/train", {}, "no configuration 'c'"),
        ("hf:me/outside", {}, "not there: ../../../"),
        ("hf:me/unnamed", {}, r"named after a split: a\.jsonl, b\.jsonl"),
        ("hf:me/named", {"HF_HUB_OFFLINE": "1"}, "switched off by HF_HUB_OFFLINE"),
        ("hf:me/named", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
        ("hf:me/named", {"HF_ENDPOINT": "nonsense"}, "Hub"),
    ],
)
def test_what_the_hub_does_not_give_is_an_error_by_name(
    check, place, environment, said
):
    code, report = check(place, **environment)
    assert code == 2
    error = report["error"]
    assert error["kind"] == "data"
    assert re.search(said, f"{error['message']} {error['hint']}"), error


def test_a_token_opens_what_is_gated(check):
    assert _sizes(check("hf:me/gated", HF_TOKEN=TOKEN)) == {"train": 1}


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("hf:a/b", ("a/b", None, None, None)),
        ("hf:a/b@v1:test", ("a/b", "v1", None, "test")),
        ("hf:a/b@refs/pr/1:c/test", ("a/b", "refs/pr/1", "c", "test")),
    ],
)
def test_an_address_names_a_revision_and_a_split(place, wanted):
    assert hub.address(place) == wanted


@pytest.mark.parametrize("place", ["hf:", "hf:a", "hf:a/b/c", "hf:a/b:", "hf:a/b:c/"])
def test_an_address_written_otherwise_is_refused(place):
    with pytest.raises(DataError, match="names no data set"):
        hub.address(place)
