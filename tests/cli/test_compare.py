import json

from .conftest import OF_ONE_RUN, flags_of, run


def test_every_setting_of_train_can_be_compared_with():
    train, compare = flags_of("train", "compare")
    own = OF_ONE_RUN | {"--dry-run", "--objective", "--profile", "--init-adapter"}
    assert train - compare == own


def test_the_table_says_what_the_record_holds(tmp_path, tiny_folder, tiny_data):
    flags = ["--model", tiny_folder, "--data", tiny_data, "--layers", "last:1"]
    flags += ["--arm", "sft", "--arm", "dft:floor=0.1", "--steps", 2, "--seeds", 1]
    flags += ["--out", tmp_path / "out"]
    ran = run("compare", *flags, "--json")
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert record == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert "is likely to be found" in " ".join(ran.stderr.split())
    said = run("compare", *flags)
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0].startswith("exact_match")
    assert [line.split()[0] for line in lines[2:5]] == ["base", "sft", "dft:floor=0.1"]
    assert sum("dft:floor=0.1" in line and " to " in line for line in lines) >= 4
    verdict = next(line for line in lines if line.startswith(record["verdict"]))
    assert verdict == f"{record['verdict']}: {record['reason']}"
    assert any(line.startswith("limit: One seed") for line in lines)


def test_what_is_missing_is_asked_for(tmp_path):
    ran = run("compare", "--arm", "sft", "--arm", "dft")
    assert ran.returncode == 2
    assert "--out" in ran.stderr
    ran = run("compare", "--arm", "sft", "--out", tmp_path / "out")
    assert ran.returncode == 2
    assert "--model" in ran.stderr
    assert "--data" in ran.stderr
    assert not (tmp_path / "out").exists()
