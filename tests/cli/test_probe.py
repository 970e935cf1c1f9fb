import csv
import json

import pytest

from .conftest import run


@pytest.fixture(scope="module")
def printed(tiny_folder, tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    flags = ["--model", tiny_folder, "--data", tiny_data]
    files = ["--html", out / "p.html", "--suspects", out / "s.csv"]
    return (
        out,
        run("probe", *flags, "--json", *files),
        run("probe", *flags, "--objective", "dft"),
    )


def test_json_is_one_document_with_what_the_contract_says(printed):
    _, ran, _ = printed
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    contract = {
        "rows",
        "tokens",
        "mean_p",
        "nll",
        "histogram",
        "objectives",
        "suspects",
    }
    assert contract | {"recommendation"} <= set(record)
    assert {"objective", "reason"} <= set(record["recommendation"])
    assert record["rows"] == 20


def test_the_page_and_the_table_are_written(printed):
    out, ran, _ = printed
    assert "<h1>Before training</h1>" in (out / "p.html").read_text()
    with (out / "s.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["where"] for r in rows] == [
        suspect["where"] for suspect in json.loads(ran.stdout)["suspects"]
    ]


def test_people_read_which_rows_were_read_and_what_is_recommended(printed):
    _, _, ran = printed
    assert ran.returncode == 0, ran.stderr
    assert "all 20 training rows" in ran.stdout
    assert "recommended: --objective sft" in ran.stdout
    assert "B  dft" in ran.stdout
    assert "power" not in ran.stdout


def test_a_bounded_sample_is_said_plainly(tiny_folder, tmp_path):
    rows = [{"prompt": f"q{n}", "completion": "a"} for n in range(80)]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    ran = run(
        "probe", "--model", tiny_folder, "--data", file, "--rows", 70, "--seed", 3
    )
    assert "70 of 80 training rows, drawn by seed 3" in ran.stdout, ran.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--objective", "dtf"], "Did you mean 'dft'"),
        (["--objective", "auto"], "no objective 'auto'"),
        (["--rows", 0], "--rows"),
        (["--data", "/nowhere"], "no such file"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(
    tiny_folder, tiny_data, flags, said
):
    ran = run("probe", "--model", tiny_folder, "--data", tiny_data, *flags)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_what_is_corrected_in_the_table_goes_back_into_the_data(tiny_folder, tmp_path):
    letters = "bcdfghjk"  # none that the template has in every prompt
    rows = [
        {"prompt": letters[n % 8] * 3, "completion": letters[n % 8].upper()}
        for n in range(80)
    ]
    rows[5]["completion"] = "B"
    file, table, out = (
        tmp_path / name for name in ("train.jsonl", "s.csv", "new.jsonl")
    )
    file.write_text("\n".join(map(json.dumps, rows)))
    ran = run("probe", "--model", tiny_folder, "--data", file, "--suspects", table)
    assert "\n1 of 80 rows look mislabelled" in ran.stdout, ran.stderr
    text = table.read_text(encoding="utf-8-sig")
    with table.open(encoding="utf-8-sig", newline="") as opened:
        (suspect,) = csv.DictReader(opened)
    assert (suspect["where"], suspect["neighbours_say"]) == (f"{file}:6", "H")
    table.write_text(text.replace("B,,H", "B,H,H"), encoding="utf-8-sig")
    fixed = run("data", "fix", file, "--out", out, "--suspects", table, "--json")
    assert json.loads(fixed.stdout)["corrected"] == 1, fixed.stderr
    rows[5]["completion"] = "H"
    assert list(map(json.loads, out.read_text().splitlines())) == rows
