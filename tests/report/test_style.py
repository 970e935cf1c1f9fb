import re

import pytest

from mlx_rsft.report import drawing, page, style

TEXT, GRAPHIC = 4.5, 3.0
"""WCAG 2.2, level AA: 1.4.3 for text, 1.4.11 for what must be told apart."""
CARDS = ("paper", "card")
ON_CARDS = ("ink", "faint", "better", "worse", "unclear", "go", "no-go", "undecided")
SERIES = tuple(f"s{n}" for n in range(drawing.SERIES))


def _schemes(css):
    """The colours of both schemes, as the style sheet has them."""
    blocks = re.findall(r":root \{([^}]*)\}", css)
    found = [
        dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block)) for block in blocks
    ]
    return {"light": found[0], "dark": found[1]}


def _luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_guideline():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_every_ground_it_stands_on(scheme):
    colours = _schemes(style.STYLE)[scheme]
    pairs = [(ink, ground) for ink in (*ON_CARDS, "link") for ground in CARDS]
    pairs += [("ink", "trough"), ("faint", "trough")]
    for ink, ground in pairs:
        assert contrast(colours[ink], colours[ground]) >= TEXT, (ink, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_series_stand_out_from_the_card_and_the_trough(scheme):
    colours = _schemes(style.STYLE)[scheme]
    for ink in SERIES:
        for ground in ("card", "trough"):
            assert contrast(colours[ink], colours[ground]) >= GRAPHIC, (ink, ground)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_every_page_stands_out(scheme):
    colours = _schemes(page.STYLE)[scheme]
    for ink, ground in (("ink", "paper"), ("faint", "paper"), ("on-ink", "on")):
        assert contrast(colours[ink], colours[ground]) >= TEXT, (ink, ground)


def test_both_schemes_have_the_same_colours_and_paper_is_light():
    found = _schemes(style.STYLE)
    assert found["light"].keys() == found["dark"].keys()
    assert set(style.LIGHT) == set(found["light"])
    assert style.STYLE.rindex(style.LIGHT["paper"]) > style.STYLE.index("@media print")


def test_every_colour_used_is_one_of_the_schemes():
    used = set(re.findall(r"var\(--([\w-]+)", style.STYLE))
    assert used - set(style.LIGHT) == {"c", "sans"}
    sheet = re.sub(r":root \{[^}]*\}", "", style.STYLE)
    assert not re.findall(r"#[0-9a-f]{3,6}\b", sheet)
