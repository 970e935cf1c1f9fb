import copy

import pytest

from mlx_rsft import testing
from mlx_rsft.data.encoding import Encoder

TEXT = (
    "<|im_start|>user\nGröße  of\n\n\tpart 12?\N{SNOWMAN}<|im_end|>\n"
    "<|im_start|>assistant\n\nIt is 12 mm.  \n<|im_end|>\n"
)


class Slow:
    """A tokenizer without a fast core."""

    def __init__(self, tokenizer):
        self.encode = tokenizer.encode


def _by_definition(encoder, text, place):
    """The tokens of the text before a place must be the first of the whole text."""
    before, whole = encoder.ids(text[:place]), encoder.ids(text)
    return len(before) if whole[: len(before)] == before else None


@pytest.mark.parametrize("kind", ["demo", "bytes"])
def test_a_place_is_found_exactly_where_the_text_before_it_gives_the_tokens_before(
    kind, demo_tokenizer
):
    tokenizer = demo_tokenizer if kind == "demo" else testing.byte_tokenizer()
    encoder = Encoder(tokenizer)
    encoded = encoder.encode(TEXT)
    assert encoded.tokens == tokenizer.encode(TEXT, add_special_tokens=False)
    found = [encoded.at(place) for place in range(len(TEXT) + 1)]
    assert found == [_by_definition(encoder, TEXT, p) for p in range(len(TEXT) + 1)]
    assert None in found[1:] or kind == "bytes"


def test_a_slow_tokenizer_finds_the_same_places(demo_tokenizer):
    fast, slow = Encoder(demo_tokenizer), Encoder(Slow(demo_tokenizer))
    a, b = fast.encode(TEXT), slow.encode(TEXT)
    assert a.tokens == b.tokens
    assert all(a.at(place) == b.at(place) for place in range(len(TEXT) + 1))


def test_the_core_is_not_used_where_an_outer_layer_changes_the_text(demo_tokenizer):
    class Shouting:
        _tokenizer = demo_tokenizer._tokenizer

        def encode(self, text, *, add_special_tokens):
            return demo_tokenizer.encode(text.upper(), add_special_tokens=False)

    assert Encoder(Shouting()).ids("abc") == Encoder(demo_tokenizer).ids("ABC")


def test_a_tokenizer_that_would_cut_long_texts_does_not(demo_tokenizer):
    cutting = copy.deepcopy(demo_tokenizer._tokenizer)
    cutting.backend_tokenizer.enable_truncation(max_length=4)
    assert len(Encoder(cutting).ids(TEXT)) == len(Encoder(demo_tokenizer).ids(TEXT))
