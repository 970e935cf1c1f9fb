import http.client
import json
import signal
import subprocess

from mlx_rsft import testing

from .conftest import started


def test_ctrl_c_ends_a_server_that_is_in_the_middle_of_an_answer(
    tiny_folder, tiny_adapter
):
    flags = ["--model", tiny_folder, "--adapter", tiny_adapter, "--port", 0, "--json"]
    pipe = subprocess.PIPE
    server = started("serve", *flags, stdout=pipe, stderr=pipe, text=True)
    try:
        lines = iter(server.stdout.readline, "}\n")
        record = json.loads("".join(lines) + "}")
        assert record["adapter"]["path"] == str(tiny_adapter)
        host, port = record["url"].split("/")[2].split(":")
        assert host == "127.0.0.1"
        client = http.client.HTTPConnection(host, int(port), timeout=60)
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "max_tokens": 1_000_000,
            "logit_bias": {str(testing.VOCABULARY - 1): -100},  # never ends by itself
        }
        client.request("POST", "/v1/chat/completions", json.dumps(body))
        with client.getresponse() as answer:
            assert answer.status == 200
            answer.readline()
            server.send_signal(signal.SIGINT)
            _, told = server.communicate(timeout=30)
    finally:
        server.kill()
        server.wait()
    assert server.returncode == 130, told
    assert "Traceback" not in told
