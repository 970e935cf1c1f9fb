"""Malformed files, one by one: each an error with its place, or a row after all."""

import gzip
import json
import os
import re
import subprocess
import sys
import tracemalloc

import pytest

from mlx_rsft.data import formats, source
from mlx_rsft.data.conversation import Conversation
from mlx_rsft.errors import DataError, RsftError

GOOD = '{"prompt": "q", "completion": "a"}'
LINE = GOOD.encode()
HEADER = b"prompt,completion\n"


def _read(path):
    """What is read: ``row`` for a row, and the text of each error."""
    found = []
    try:
        for item in formats.conversations(path):
            found.append("row" if isinstance(item, Conversation) else str(item))
            assert isinstance(item, Conversation | DataError)
    except RsftError as problem:
        found.append(str(problem))
    return found


def _deep(depth, inner="1"):
    return '{"a":' * depth + inner + "}" * depth


def _gz(content, keep=None):
    packed = gzip.compress(content, mtime=0)
    return packed[:keep]


def _spoilt(content):
    packed = bytearray(gzip.compress(content, mtime=0))
    packed[20] ^= 0xFF
    return bytes(packed)


MALFORMED = [
    # JSON lines
    ("a.jsonl", b"", ["a.jsonl: The file holds no rows"]),
    ("a.jsonl", b"\n \r\n\t\n", ["holds no rows"]),
    ("a.jsonl", b"\n" + LINE + b"\r\n\r\n" + LINE, ["row", "row"]),
    ("a.jsonl", LINE + b"\r" + LINE + b"\r{", ["row", "row", "a.jsonl:3"]),
    ("a.jsonl", LINE + b"\n\xef\xbb\xbf" + LINE, ["row", "row"]),
    ("a.jsonl", b"\xef\xbb\xbf" + LINE, ["row"]),
    ("a.jsonl", LINE + b",\n" + LINE, ["second value begins at column 35", "row"]),
    ("a.jsonl", LINE + LINE, ["second value"]),
    (
        "a.jsonl",
        b'{"prompt": "q", "completion": "a",}',
        ["property name|trailing comma"],
    ),
    ("a.jsonl", b"{'prompt': 'q'}", ["a.jsonl:1: Not valid JSON"]),
    ("a.jsonl", b'{"prompt": "q"', ["delimiter"]),
    ("a.jsonl", b'{"prompt": "q\tq", "completion": "a"}', ["control character"]),
    ("a.jsonl", b'{"prompt": "q\0", "completion": "a"}', ["a NUL character at"]),
    ("a.jsonl", LINE + b"\n\0\0\0\n", ["row", "a.jsonl:2.*NUL"]),
    ("a.jsonl", b'17\ntrue\nnull\n"x"', ["found int", "bool", "NoneType", "str"]),
    ("a.jsonl", b'{"a": NaN}\n' + LINE, ["NaN is no JSON number", "row"]),
    ("a.jsonl", b'{"a": [-Infinity]}', ["-Infinity is no JSON number"]),
    ("a.jsonl", b'{"a": 1e999}', ["the number 1e999 is too large"]),
    ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", ["too large"]),
    ("a.jsonl", b'{"a": ' + b"9" * 400 + b"}", ["too large"]),
    ("a.jsonl", b'{"prompt": "q", "prompt": "r", "completion": "a"}', ["'prompt' is"]),
    ("a.jsonl", b'{"a": {"b": 1, "b": 2}}', ["the key 'b' is there twice"]),
    ("a.jsonl", b'{"prompt": "\\ud800", "completion": "a"}', ["half of a letter"]),
    ("a.jsonl", b'{"prompt": "\\uDEAD x", "completion": "a"}', ["half of a letter"]),
    ("a.jsonl", b'{"prompt": "\\ud83d\\ude00", "completion": "a"}', ["row"]),
    ("a.jsonl", b'{"\\ud800": 1}', ["half of a letter"]),
    ("a.jsonl", b'{"a":' * 100_000, ["too deeply"]),
    ("a.jsonl", _deep(400).encode() + b"\n" + LINE, ["too deeply", "row"]),
    ("a.jsonl", _deep(99).encode(), ["fits no format"]),
    ("a.jsonl", b'{"prompt": "\xe6\x97", "completion": "a"}', ["byte 0xe6 at column"]),
    ("a.jsonl", LINE + b"\n" + '{"x": "Öl"}'.encode("cp1252"), ["row", "jsonl:2"]),
    ("a.jsonl", b'{"prompt": "\xed\xa0\x80", "completion": "a"}', ["byte 0xed"]),
    ("a.jsonl", b"[" + LINE + b",\n" + LINE + b"]", ["row", "row"]),
    ("a.jsonl", b"<html>\n</html>\n", ["jsonl:1: Not valid", "jsonl:2: Not valid"]),
    ("a.jsonl", b"PK\x03\x04 and so on", ["spreadsheet.* Save it as CSV"]),
    ("a.jsonl", _gz(LINE), ["packed by gzip"]),
    ("a.jsonl", (LINE + b"\n").decode().encode("utf-16")[:-1], ["jsonl:1.*utf-16"]),
    ("data", LINE + b"\n{", ["row", "data:2"]),
    # gzip
    ("a.jsonl.gz", _gz(LINE * 1), ["row"]),
    ("a.jsonl.gz", _gz(LINE, 20), ["cannot be read"]),
    ("a.jsonl.gz", _gz(LINE)[:-4], ["cannot be read"]),
    ("a.jsonl.gz", _spoilt(LINE * 99), ["cannot be read"]),
    ("a.jsonl.gz", LINE, ["cannot be read"]),
    ("a.jsonl.gz", b"", ["holds no rows"]),
    # JSON
    ("a.json", b"[]", ["holds no rows"]),
    ("a.json", b"[\n" + LINE + b",\n" + LINE + b",\n]", ["row", "row", "a.json:4"]),
    ("a.json", b"[" + LINE + b"]]", ["row", "the array has ended"]),
    ("a.json", b"[" + LINE + b"\n\n" + LINE + b"]", ["row", "a.json:3.*where , or ]"]),
    ("a.json", b"[" + LINE, ["row", "end of the file"]),
    ("a.json", b"[", ["Expecting value"]),
    ("a.json", b"[\n\n{]", ["a.json:3"]),
    ("a.json", b"[1, " + LINE + b", null]", ["item 1: .*found int", "row", "NoneType"]),
    ("a.json", b'[{"a": NaN},\n' + LINE + b"]", ["a.json:1: item 1.*NaN", "row"]),
    ("a.json", b'[{"a": 1, "a": 1}, ' + LINE + b"]", ["'a' is there twice", "row"]),
    ("a.json", b'["\\ud800", ' + LINE + b"]", ["half of a letter", "row"]),
    ("a.json", b"[" * 100_000, ["too deeply"]),
    ("a.json", b'["\xff", ' + LINE + b"]", ["byte 0xff", "row"]),
    ("a.json", LINE + b"\n" + LINE + b"\n", ["row", "row"]),
    ("a.json", LINE, ["row"]),
    ("a.json", b'{\n "prompt": "q"\n}', ["a.json:1.*JSON array of rows"]),
    ("a.json", b'{"data": [' + LINE + b"]}", ["its keys are 'data'"]),
    ("a.json", b"null", ["JSON array of rows"]),
    # tables
    ("a.csv", b"", ["holds no rows"]),
    ("a.csv", HEADER, ["holds no rows"]),
    ("a.csv", b"\n\n" + HEADER + b"q,a\n", ["row"]),
    ("a.csv", b"q1,a1\nq2,a2\nq3,a3\n", ["its keys are 'q1', 'a1'"]),
    ("a.csv", b"prompt,prompt\nq,a\n", ["a.csv:1: .*'prompt' more than once"]),
    ("a.csv", b",prompt,completion,\n0,q,a,\n1,r,b,\n", ["row", "row"]),
    ("a.csv", HEADER + b"q,a,,\nq,a,b\nq\n", ["row", "a.csv:3: .*3 cells", "csv:4"]),
    ("a.csv", HEADER + b'"q\n\nq",a\nq\n', ["row", "a.csv:5: .*1 cells"]),
    ("a.csv", HEADER + b'q,a\n"open,a\nq,a\n', ["row", "a.csv:3: .*to line 4"]),
    ("a.csv", HEADER + b'"q"x,a\nq,a\n', ["a.csv:2: Not a valid table", "row"]),
    ("a.csv", HEADER + b'5" pipe,a\n', ["row"]),
    ("a.csv", b"sep=;\r\nprompt;completion\r\nq;a\r\nq\r\n", ["row", "a.csv:4"]),
    ("a.csv", b"\xef\xbb\xbfsep=;\nprompt;completion\nq,q;a\n", ["row"]),
    ("a.csv", b"\xef\xbb\xbfprompt;completion\nq;a\n", ["row"]),
    ("a.csv", b'"prompt","completion"\rq,a\r', ["row"]),
    ("a.csv", b'"a, b, c, d";prompt;completion\nx;q;a\n', ["row"]),
    ("a.csv", HEADER + b"q\0,a\n", ["a.csv:2: .*NUL"]),
    ("a.csv", HEADER + "Öl,a\n".encode("cp1252"), ["a.csv:2: .*'Öla' with .*cp1252"]),
    ("a.csv", b"Gr\xf6\xdfe,completion\nq,a\n", ["a.csv:1: Not valid UTF-8"]),
    ("a.tsv", b"prompt\tcompletion\nq, q\ta\n", ["row"]),
    ("a.tsv", b"text\nonce, upon\n", ["row"]),
    ("a.csv", b"prompt,completion\nq,\n", ["completion|empty"]),
    # other
    ("a.parquet", b"", ["Parquet"]),
    ("a.parquet", b"PAR1" + b"\0" * 99 + b"PAR1", ["Parquet"]),
    ("a.parquet", LINE, ["Parquet"]),
    ("a.txt", b"once upon a time\n\xff", ["byte 0xff"]),
    ("a.txt", b" \n", ["holds no rows"]),
    ("a.md", b"# Once\n\nupon a time\n", ["row"]),
    ("a.txt", LINE + b"\n{\n", ["row", "a.txt:2"]),
    ("a.xlsx", b"PK\x03\x04", ["spreadsheet"]),
    ("a.txt", b"%PDF-1.7", ["PDF"]),
]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    MALFORMED,
    ids=[f"{n}-{name}" for n, (name, _, _) in enumerate(MALFORMED)],
)
def test_a_malformed_file_is_named_and_its_good_rows_are_read(
    tmp_path, name, content, wanted
):
    path = tmp_path / name
    path.write_bytes(content)
    found = _read(path)
    assert len(found) == len(wanted), found
    for said, expected in zip(found, wanted, strict=True):
        if expected == "row" or said == "row":
            assert said == expected
        else:
            assert re.search(expected, said), said
            assert said.startswith(str(path))


def _folder(path):
    path.mkdir()


def _fifo(path):
    os.mkfifo(path)


def _loop(path):
    path.symlink_to(path)


def _dangling(path):
    path.symlink_to(path.with_name("gone"))


def _locked(path):
    path.write_bytes(LINE)
    path.chmod(0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_folder, "a folder"),
        (_fifo, "no regular file"),
        (_loop, "cannot be read .*symbolic links"),
        (_dangling, "cannot be read .*No such file"),
        pytest.param(
            _locked,
            "cannot be read .*denied",
            marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read all"),
        ),
    ],
)
@pytest.mark.parametrize("name", ["train.jsonl", "train.csv", "train.parquet"])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, make, said, name):
    make(tmp_path / name)
    (found,) = _read(tmp_path / name)
    assert re.search(said, found)
    assert _refusal(lambda: source.find_splits(tmp_path / name)) or make is _folder


@pytest.mark.parametrize("name", ["x" * 300, "\0", "\udcff.jsonl", "loop/a.jsonl"])
def test_a_place_that_cannot_be_is_refused(tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert _refusal(lambda: source.find_splits(tmp_path / name))


def test_a_name_of_odd_bytes_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.jsonl")
    path.write_bytes(b"{")
    assert _read(path)[0].isprintable()


def _refusal(call):
    try:
        call()
    except RsftError as problem:
        return str(problem)
    return ""


def test_a_row_of_fifty_megabytes_is_read_in_a_few_times_its_size(tmp_path):
    size = 50 << 20
    row = json.dumps({"prompt": "q" * size, "completion": "a"})
    for name, content in (("a.jsonl", row), ("b.json", f"[{row}]")):
        (tmp_path / name).write_text(content)
        tracemalloc.start()
        assert _read(tmp_path / name) == ["row"]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 6 * size, f"{name}: {peak / size:.1f} times"


def test_rows_are_read_one_by_one_whatever_the_file_holds(tmp_path):
    rows = [json.dumps({"prompt": "q" * 2000, "completion": "a"})] * 6_000
    table = "prompt,completion\n" + f"{'q' * 2000},a\n" * 6_000
    files = {
        "a.jsonl": "\n".join(rows),
        "a.json": f"[{','.join(rows)}]",
        "a.csv": table,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        size = len(content)
        del content
        tracemalloc.start()
        read = sum(1 for _ in formats.conversations(tmp_path / name))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert read == 6_000
        assert peak < size / 3, f"{name}: {peak} of {size} bytes"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.jsonl", b'{"prompt": "\xff"}\n{', 3),
        ("a.csv", b"prompt,prompt\nq,a\n", 3),
        ("a.json", b"[" * 100_000, 3),
        ("a.parquet", b"PAR1", 3),
        ("a.jsonl.gz", _gz(LINE, 20), 3),
        ("\udcff.jsonl", b'{"\\ud800": 1}', 3),
    ],
)
def test_the_command_line_says_what_is_wrong_without_a_traceback(
    tmp_path, name, content, code
):
    path = tmp_path / name
    path.write_bytes(content)
    ran = subprocess.run(
        [sys.executable, "-m", "mlx_rsft", "data", "check", str(path)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in ran.stderr
    assert ran.returncode == code
    assert b"malformed" in ran.stdout
