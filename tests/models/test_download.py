import hashlib
import http.server
import threading
from dataclasses import dataclass, field

import pytest

from mlx_rsft.errors import ModelError
from mlx_rsft.models import download as module
from mlx_rsft.models.download import download

CONTENT = bytes(range(256)) * 4096
HALF = len(CONTENT) // 2
EXPECTED = {
    "size_bytes": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
}


@dataclass
class Server:
    """Answers each request by the next trick of ``script``, then honestly."""

    url: str = ""
    script: list[str] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)


def handler_of(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            server.asked.append(asked)
            trick = server.script.pop(0) if server.script else "honest"
            if trick.isdigit():
                self.send_error(int(trick))
                return
            body = CONTENT + b"more" if trick == "another file" else CONTENT
            if trick == "corrupted":
                body = b"?" + CONTENT[1:]
            start = 0
            if asked and trick != "ignores range":
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                start += trick == "wrong range"
                given = f"bytes {start}-{len(body) - 1}/{len(body)}"
                self.send_response(206)
                self.send_header("Content-Range", given)
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            end = HALF if trick == "drops" else len(body)
            self.wfile.write(body[start:end])

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def server():
    server = Server()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler_of(server)) as loop:
        server.url = f"http://127.0.0.1:{loop.server_port}/file.whl"
        thread = threading.Thread(target=loop.serve_forever, args=(0.01,))
        thread.start()
        yield server
        loop.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.whl"


@pytest.fixture
def partial(tmp_path):
    return tmp_path / "file.whl.partial"


def test_a_file_arrives_complete_and_the_report_climbs_to_its_size(server, path):
    told = []
    download(server.url, path, report=lambda *at: told.append(at), **EXPECTED)
    assert path.read_bytes() == CONTENT
    assert [path] == list(path.parent.iterdir())
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_a_dropped_connection_is_resumed_where_it_stopped(server, path):
    server.script = ["drops"]
    download(server.url, path, waits_s=[0], **EXPECTED)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={HALF}-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server, path, partial):
    server.script = ["drops"]
    with pytest.raises(ModelError, match=f"{HALF} of {len(CONTENT)} bytes are kept"):
        download(server.url, path, waits_s=[], **EXPECTED)
    assert partial.read_bytes() == CONTENT[:HALF]
    assert not path.exists()
    told = []
    download(server.url, path, report=lambda *at: told.append(at), **EXPECTED)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={HALF}-"
    assert told[0][0] > HALF


def test_waits_grow_until_the_server_is_given_up(server, path, monkeypatch):
    waited = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    server.script = ["503"] * 9
    with pytest.raises(ModelError, match=r"127\.0\.0\.1 failed 5 times"):
        download(server.url, path, **EXPECTED)
    assert waited == list(module.WAITS_S) == sorted(set(waited))


@pytest.mark.parametrize("trick", ["ignores range", "wrong range", "416"])
def test_a_server_that_cannot_resume_is_read_from_the_start(
    server, path, partial, trick
):
    partial.write_bytes(CONTENT[:HALF])
    server.script = [trick]
    download(server.url, path, waits_s=[0], **EXPECTED)
    assert path.read_bytes() == CONTENT
    assert server.asked[1:] in ([], [None])


def test_corrupted_bytes_are_deleted_and_the_next_call_starts_anew(
    server, path, partial
):
    server.script = ["corrupted"]
    with pytest.raises(ModelError, match=r"expected SHA-256 .* deleted"):
        download(server.url, path, **EXPECTED)
    assert not path.exists()
    assert not partial.exists()
    download(server.url, path, **EXPECTED)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("garbage", [b"?" * HALF, CONTENT + b"?"])
def test_a_partial_file_of_something_else_never_becomes_the_file(
    server, path, partial, garbage
):
    partial.write_bytes(garbage)
    with pytest.raises(ModelError, match="SHA-256"):
        download(server.url, path, **EXPECTED)
    assert not path.exists()
    assert not partial.exists()


def test_a_page_that_is_not_the_file_is_refused_before_it_is_kept(
    server, path, partial
):
    server.script = ["another file"]
    with pytest.raises(ModelError, match=f"expected {len(CONTENT)}"):
        download(server.url, path, **EXPECTED)
    assert not partial.exists()


def test_a_refusal_is_final(server, path):
    server.script = ["404"]
    with pytest.raises(ModelError, match="404"):
        download(server.url, path, **EXPECTED)
    assert server.asked == [None]


def test_a_machine_that_does_not_answer_is_named(path):
    with pytest.raises(ModelError, match=r"127\.0\.0\.1 failed 2 times.*refused"):
        download("http://127.0.0.1:1/file.whl", path, waits_s=[0], **EXPECTED)


def test_a_file_url_is_copied(path, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    download(source.as_uri(), path, **EXPECTED)
    assert path.read_bytes() == CONTENT
    assert source.exists()
