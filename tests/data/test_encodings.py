# ruff: noqa: RUF001, the letters that people write, quotes and dashes among them
import gzip

import pytest

from mlx_rsft.data import containers, encodings, formats
from mlx_rsft.errors import ConfigError, DataError

NOTES = "メモ,処置\r\n主軸から異音がする,軸受を交換する\r\nｾﾝｻｰ断線,再起動\r\n"
GERMAN = "Notiz,Maßnahme\r\nÖl läuft aus – Stütze 12,„Dichtung“ prüfen\r\n"
ENGLISH = "note,action\r\nthe spindle doesn’t stop,it’s the “brake”\r\n"
FRENCH = "note,action\r\nla pièce est usée,à remplacer dès demain\r\n"
CHINESE = "记录,处理\r\n主轴有噪音,更换轴承\r\n"
RUSSIAN = "заметка,действие\r\nшумит шпиндель,заменить подшипник\r\n"


def _file(tmp_path, content, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("text", [NOTES, GERMAN, ENGLISH, CHINESE, RUSSIAN])
@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16"),
        ("utf-32", "utf-32"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
    ],
)
def test_unicode_is_told_in_whichever_form_and_gives_the_same_rows(
    tmp_path, text, written, found
):
    path = _file(tmp_path, text.encode(written))
    assert containers.encoding_of(path) == found
    rows = [dict(row.record) for row in containers.read(path)]
    plain = _file(tmp_path, text.encode(), "b.csv")
    assert rows == [dict(row.record) for row in containers.read(plain)]


def test_shift_jis_is_told_by_its_kana(tmp_path):
    path = _file(tmp_path, gzip.compress(NOTES.encode("cp932")), "a.csv.gz")
    assert containers.encoding_of(path) == "cp932"
    first = next(iter(containers.read(path)))
    assert dict(first.record) == {
        "メモ": "主軸から異音がする",
        "処置": "軸受を交換する",
    }


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (GERMAN, "cp1252"),
        (ENGLISH, "cp1252"),
        (FRENCH, "cp1252"),
        (CHINESE, "gbk"),
        (CHINESE, "big5hkscs"),
        (RUSSIAN, "cp1251"),
        (NOTES, "euc_jp"),
        ("部品,交換\n", "cp932"),
    ],
)
def test_nothing_else_is_guessed(tmp_path, text, written):
    content = text.encode(written, errors="ignore")
    assert containers.encoding_of(_file(tmp_path, content)) == "utf-8"


@pytest.mark.parametrize("text", [NOTES, GERMAN, FRENCH])
def test_broken_utf_8_is_never_taken_for_another_encoding(tmp_path, text):
    whole = text.encode()
    for place in range(len(whole)):
        if whole[place] >= 0x80:
            content = whole[:place] + whole[place + 1 :]
            assert containers.encoding_of(_file(tmp_path, content)) == "utf-8"


def test_a_few_nuls_are_not_utf_16(tmp_path):
    path = _file(tmp_path, b'{"prompt": "q\0", "completion": "a"}\n', "a.jsonl")
    assert containers.encoding_of(path) == "utf-8"


def test_an_undecodable_byte_has_a_line_a_column_and_a_reading(tmp_path):
    lines = ['{"prompt": "q", "completion": "a"}'] * 3
    lines[1] = lines[1].replace("q", "Öl")
    path = _file(tmp_path, "\n".join(lines).encode("cp1252"), "a.jsonl")
    found = list(formats.conversations(path))
    assert [isinstance(row, DataError) for row in found] == [False, True, False]
    assert found[1].where == f"{path}:2"
    assert "byte 0xd6 at column 13" in found[1].message
    assert "Öl" in found[1].hint
    assert "--encoding cp1252" in found[1].hint
    (_, second, _) = formats.conversations(path, encoding="cp1252")
    assert second.messages[0].content == "Öl"


@pytest.mark.parametrize(
    ("encoding", "line_end", "broken"),
    [
        ("utf-16", "\n", b"\x00\xdc\x00\xdc"),
        ("shift_jis", "\r\n", b"\x81\n"),
        ("ascii", "\r", b"\xe4"),
    ],
)
def test_in_any_encoding_the_line_is_named_however_far_down(
    tmp_path, monkeypatch, encoding, line_end, broken
):
    monkeypatch.setattr(encodings, "CHUNK", 64)
    text = f'{{"text": "a"}}{line_end}' * 1000
    path = _file(tmp_path, text.encode(encoding) + broken, "a.jsonl")
    (*_, last) = formats.conversations(path, encoding=encoding)
    assert isinstance(last, DataError)
    assert last.where == f"{path}:1001"


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13", "", "utf-8\0", "auto "])
def test_an_encoding_of_no_text_is_refused(name):
    with pytest.raises(ConfigError, match="no encoding"):
        encodings.check(name)


def test_parquet_has_no_encoding_to_tell(tmp_path):
    assert containers.encoding_of(_file(tmp_path, b"PAR1", "a.parquet")) == ""
