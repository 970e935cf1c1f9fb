import json

from .conftest import run

LEAST = {
    "arms": [{"name": "sft", "splits": {}}],
    "differences": [],
    "verdict": "no-go",
    "reason": "nothing gained",
}


def test_a_report_is_written_and_its_place_and_verdict_are_told(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(LEAST))
    ran = run("report", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"no-go: {tmp_path / 'report.html'}")
    page = tmp_path / "ja.html"
    ran = run("report", tmp_path, "--lang", "ja", "--out", page, "--json")
    assert json.loads(ran.stdout)["page"] == str(page)
    assert "結論" in page.read_text("utf-8")


def test_wrong_input_is_a_message_with_exit_code_2(tmp_path):
    ran = run("report", tmp_path)
    assert ran.returncode == 2
    assert "comparison.json" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert run("report", tmp_path, "--lang", "fr").returncode == 2
