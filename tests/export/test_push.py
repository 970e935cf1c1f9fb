"""``--push`` against a server on this machine that answers as the Hub does."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TOKEN = "hf_secretsecretsecret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """The few addresses of the Hub that an upload asks for; keeps what it is sent."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunked()
        self.server.asked.append((self.path, body))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._json(401, {"error": "Invalid username or password."})
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            return self._json(200, {"url": f"{self.server.address}/me/tuned"})
        if path == "/api/validate-yaml":
            return self._json(200, {"errors": [], "warnings": []})
        if re.fullmatch(r"/api/models/me/tuned/preupload/main", path):
            named = [one["path"] for one in json.loads(body)["files"]]
            kept = {"uploadMode": "regular", "shouldIgnore": False}
            return self._json(200, {"files": [{"path": n, **kept} for n in named]})
        if re.fullmatch(r"/api/models/me/tuned/commit/main", path):
            where = f"{self.server.address}/me/tuned/commit/{COMMIT}"
            return self._json(
                200, {"commitUrl": where, "commitOid": COMMIT, "success": True}
            )
        return self._json(404, {"error": f"nothing at {path}"})

    def _chunked(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return b""
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, status, value):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as running:
        running.asked = []
        running.address = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def export(server, tiny_adapter, tiny_folder, tmp_path):
    """Export the tiny adapter and push it; what the command said, and its code."""

    def run(out, token, *more):
        settings = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": token,
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-m", "mlx_rsft", "export", str(tiny_adapter)]
        command += ["--model", str(tiny_folder), "--to", "mlx", "--out", str(out)]
        ran = subprocess.run(
            [*command, "--push", "me/tuned", *more],
            capture_output=True,
            text=True,
            env=settings,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in ran.stderr
        assert token not in ran.stdout + ran.stderr
        return ran.returncode, " ".join(ran.stderr.split())

    return run


def _committed(body):
    lines = [json.loads(line) for line in body.decode().splitlines()]
    return {
        line["value"]["path"]: base64.b64decode(line["value"]["content"])
        for line in lines
        if line["key"] == "file"
    }


def test_what_is_pushed_is_what_was_written_and_the_repository_is_private(
    export, server, tmp_path
):
    out = tmp_path / "out"
    code, said = export(out, TOKEN)
    assert code == 0, said
    assert f"uploaded: {server.address}/me/tuned/commit/{COMMIT}" in said
    asked = {path.partition("?")[0]: body for path, body in server.asked}
    made = json.loads(asked["/api/repos/create"])
    assert made["name"] == "tuned"
    assert made.get("private") is True or made.get("visibility") == "private"
    sent = _committed(asked["/api/models/me/tuned/commit/main"])
    written = {p.name: p.read_bytes() for p in (out / "mlx").iterdir()}
    assert sent == written
    assert sent.keys() >= {"README.md", "adapters.safetensors", "adapter_config.json"}
    for _, body in server.asked:
        for word in (TOKEN, str(tmp_path)):
            assert word.encode() not in body


def test_a_token_that_may_not_write_is_named_and_the_export_stays(
    export, server, tmp_path
):
    code, said = export(tmp_path / "out", "hf_wrong")
    assert code == 2
    assert "The Hub does not take it: " in said
    assert "401" in said
    assert "hf auth login" in said
    assert (tmp_path / "out" / "mlx" / "README.md").is_file()
    assert all("commit" not in path for path, _ in server.asked)
