"""Files by the thousand, random and spoilt: each row is read, or named as an error."""

import contextlib
import csv
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_rsft.data import containers, formats
from mlx_rsft.data.conversation import Conversation, Row
from mlx_rsft.errors import DataError, RsftError

GOOD = '{"prompt": "q", "completion": "a"}'
SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".parquet", ".jsonl.gz"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["user", "assistant", "system", "[", '[{"role": "user"}]', "{}"])
)
KEYS = st.sampled_from(
    [
        *("messages", "prompt", "completion", "text", "instruction", "input", "output"),
        *("conversations", "from", "value", "role", "content", "tool_calls", "tools"),
        *("weight", "tags", "id", "system", "function", "function_call", "name"),
        *("arguments", "type"),
    ]
) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)
    ),
    max_leaves=12,
)
SPOILERS = st.lists(
    st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), min_size=1, max_size=4
)
thousands = settings(deadline=None, derandomize=True, database=None, max_examples=120)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("malformed")


def _assert_rows_or_errors(scratch, suffix, content):
    path = scratch / f"a{suffix}"
    path.write_bytes(content)
    found = []
    try:
        found.extend(formats.conversations(path))
    except RsftError as problem:
        found.append(problem)
    assert found
    for item in found:
        assert isinstance(item, Conversation | DataError)
        assert item.where.startswith(str(path))
    return found


@thousands
@given(suffix=st.sampled_from(SUFFIXES), content=st.binary(max_size=200))
def test_random_bytes_are_rows_or_named_errors(scratch, suffix, content):
    _assert_rows_or_errors(scratch, suffix, content)


@thousands
@given(
    text=st.text(max_size=80), cut=st.integers(0, 80), suffix=st.sampled_from(SUFFIXES)
)
def test_a_cut_letter_is_a_row_or_a_named_error(scratch, text, cut, suffix):
    _assert_rows_or_errors(scratch, suffix, text.encode(errors="surrogatepass")[:cut])


@thousands
@given(rows=st.lists(VALUES, max_size=4), suffix=st.sampled_from([".jsonl", ".json"]))
def test_random_values_are_rows_or_named_errors(scratch, rows, suffix):
    lines = "\n".join(json.dumps(row) for row in rows)
    found = _assert_rows_or_errors(scratch, suffix, lines.encode())
    if suffix == ".jsonl" and rows and not lines.startswith("["):
        assert len(found) == len(rows)


@thousands
@given(record=st.dictionaries(KEYS, VALUES, min_size=1, max_size=6))
def test_a_random_row_is_a_conversation_or_a_named_error(record):
    row = Row(record, "f.jsonl:17")
    for kind in formats.FORMATS.values():
        with contextlib.suppress(DataError):
            read = formats.parse(row, [kind])
            assert read.messages or read.text


@thousands
@given(lines=st.lists(st.sampled_from([GOOD, "{", "", " ", "1", '{"a": 1}', "\ufeff"])))
def test_no_line_is_dropped_in_silence(scratch, lines):
    text = "\n".join(lines)
    wanted = [line for line in text.removeprefix("\ufeff").split("\n") if line.strip()]
    found = _assert_rows_or_errors(scratch, ".jsonl", text.encode())
    assert len(found) == max(1, len(wanted))


@thousands
@given(spoilers=SPOILERS, suffix=st.sampled_from(SUFFIXES), wide=st.booleans())
def test_a_spoilt_file_is_read_as_far_as_it_goes(scratch, spoilers, suffix, wide):
    rows = [json.loads(GOOD), {"messages": [{"role": "user", "content": "é 部"}]}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    if suffix == ".json":
        lines = json.dumps(rows, indent=1)
    if suffix in (".csv", ".tsv"):
        lines = 'prompt,completion\n"a ""b""\n",é\nq,a\n'
    content = bytearray(lines.encode("utf-16" if wide else "utf-8"))
    if suffix.endswith(".gz"):
        content = bytearray(gzip.compress(content, mtime=0))
    for place, spoiler in spoilers:
        place %= len(content) + 1
        content[place : place + 1] = spoiler
    _assert_rows_or_errors(scratch, suffix, bytes(content))


CELLS = st.text(alphabet='ab",;\t\r\n\0é \ufeff', max_size=40)


@thousands
@given(table=CELLS, suffix=st.sampled_from([".csv", ".tsv"]))
def test_a_random_table_is_rows_or_named_errors(scratch, table, suffix):
    _assert_rows_or_errors(scratch, suffix, b"text,prompt\n" + table.encode())
    _assert_rows_or_errors(scratch, suffix, table.encode())


@thousands
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_what_a_table_was_written_from_is_what_is_read(scratch, rows):
    path = scratch / "written.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("prompt", "completion"), *rows])
    written = [row for row in rows if "".join(row).strip()]
    found = list(containers.read(path)) if written else []
    assert len(found) == len(written)
    for row, (prompt, completion) in zip(found, written, strict=True):
        if isinstance(row, DataError):
            assert "\0" in prompt + completion
        else:
            assert dict(row.record) == {"prompt": prompt, "completion": completion}
