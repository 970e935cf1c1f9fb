import ast
import string
from pathlib import Path

import pytest

from mlx_rsft.report import words
from mlx_rsft.report.words import LABELS, LANGUAGES, WORDS, Words

FOLDER = Path(words.__file__).parent
FAMILIES = ("metric.", "unit.", "class.")
"""Keys made of what stands in a record, where a word may be missing."""

RECORDED = ("near 1", "neither")
"""Keys that are themselves what stands in a record."""


def _fields(sentence):
    return {field for _, field, _, _ in string.Formatter().parse(sentence) if field}


def _literals():
    for path in FOLDER.glob("*.py"):
        if path.stem not in ("words", "sentences"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


@pytest.mark.parametrize("key", sorted(WORDS))
def test_every_sentence_is_there_in_both_languages_with_the_same_values(key):
    english, japanese = WORDS[key]
    assert _fields(english) == _fields(japanese)
    assert bool(english.strip()) == bool(japanese)
    assert not any(ord(letter) > 0x2FFF for letter in english)


def test_japanese_is_japanese():
    english = {key for key, (one, other) in WORDS.items() if one == other and one}
    assert english == set()


def test_no_key_stands_in_both_halves_of_the_table():
    assert len(WORDS) == len(LABELS) + len(words.SENTENCES)


def test_every_word_is_used():
    literals = set(_literals())
    for key in WORDS:
        family, _, last = key.partition(".")
        used = key in literals or (last and last in literals)
        known = key.startswith(FAMILIES) or family in ("headline", "says", "next")
        assert used or known or key in RECORDED, key


def test_every_word_asked_for_is_there():
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            asked = isinstance(node, ast.Call) and ast.unparse(node.func)
            if asked in ("say", "say.html") and isinstance(node.args[0], ast.Constant):
                assert node.args[0].value in WORDS, f"{path.name}: {node.args[0].value}"


def test_a_value_is_escaped_where_the_sentence_becomes_markup():
    for lang in LANGUAGES:
        said = Words(lang).html("failed.diverged", arm="<b>{0}</b>")
        assert "&lt;b&gt;{0}&lt;/b&gt;" in said


def test_a_metric_keeps_its_parameters_and_an_unknown_one_its_name():
    say = Words("en")
    assert say.metric("numeric:tolerance=0.1") == "number right:tolerance=0.1"
    assert say.metric("mine.module:score") == "mine.module:score"
    assert say.heading("exact_match") == "Exact match"
    assert say.heading("my_metric") == "my_metric"
