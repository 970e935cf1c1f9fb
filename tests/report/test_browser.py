"""The report in a real browser: three sizes, light and dark, both languages."""

import json
import os
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from mlx_rsft.report.comparison import from_record
from mlx_rsft.report.page import page
from mlx_rsft.report.sections import comparison_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ON_A_MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
BROWSER = next(filter(None, map(shutil.which, (*NAMES, ON_A_MAC))), None)
SIZES = (375, 768, 1280)
SCHEMES = ("light", "dark")
PAGES = [f"{lang}-{w}-{s}" for lang in ("en", "ja") for w in SIZES for s in SCHEMES]
FAULTS = page(
    "faults",
    '<p style="width: 2000px">wide</p><p style="color: #999; background: #fff">faint</p>'
    '<p>\ue123</p><svg class="plot" viewBox="0 0 100 20">'
    '<text x="90" y="10">beyond</text><text x="92" y="10">over</text></svg>',
)

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium or Chrome found to look at the report with"
)


def _frame(name, text, width, scheme):
    return (
        f'<iframe title="{name}" srcdoc="{escape(text)}" style="width: {width}px; '
        f'height: 900px; border: 0; color-scheme: {scheme}"></iframe>'
    )


def _browse(folder, *flags):
    command = [BROWSER, "--headless", "--disable-gpu", "--hide-scrollbars", *flags]
    command.append(f"--user-data-dir={folder / 'profile'}")
    if os.geteuid() == 0:
        command.append("--no-sandbox")
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True
    ).stdout


@pytest.fixture(scope="module")
def example(long_names):
    return from_record(long_names)


@pytest.fixture(scope="module")
def measured(example, tmp_path_factory):
    """What was measured of each page, by language, width and scheme."""
    folder = tmp_path_factory.mktemp("browser")
    frames = [_frame("faults", FAULTS, 375, "light")]
    for name in PAGES:
        lang, width, scheme = name.split("-")
        text = comparison_page(example, lang)
        frames.append(_frame(name, text, int(width), scheme))
    paper = comparison_page(example, "en").replace("@media print", "@media all")
    frames.append(_frame("paper", paper, 794, "dark"))
    script = Path(__file__).with_name("measure.js").read_text("utf-8")
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8">{"".join(frames)}'
        f'<pre id="found"></pre><script>{script}</script>',
        encoding="utf-8",
    )
    dumped = _browse(folder, "--dump-dom", "--window-size=1400,1000", wrapper.as_uri())
    text = re.search(r'<pre id="found">(.*?)</pre>', dumped, re.DOTALL)[1]
    return {item["name"]: item for item in json.loads(unescape(text))}


def test_the_measurement_sees_faults(measured):
    found = measured["faults"]
    assert "the page itself" in found["wide"]
    assert any("P" in item for item in found["faint"])
    assert found["glyphless"] == ["\ue123"]
    assert any(item.startswith("cut") for item in found["crowded"])
    assert any(item.startswith("over") for item in found["crowded"])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_screen_and_can_be_read(measured, name):
    found = measured[name]
    _, width, scheme = name.split("-")
    assert found["width"] == int(width)
    assert found["dark"] == (scheme == "dark")
    assert found["texts"] > 300
    assert found["wide"] == []
    assert int(width) > 375 or found["scrolling"] == []
    assert found["faint"] == []
    assert found["crowded"] == []
    assert found["glyphless"] == []


def test_paper_is_light_though_the_screen_is_dark_and_nothing_is_folded(measured):
    found, screen = measured["paper"], measured["en-768-dark"]
    assert found["dark"]
    assert found["faint"] == []
    assert found["wide"] == []
    assert found["scrolling"] == []
    assert found["folded"] == []
    assert screen["folded"] != []


def test_a_page_prints(example, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(comparison_page(example, "ja"), encoding="utf-8")
    pdf = tmp_path / "report.pdf"
    _browse(tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer", path.as_uri())
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 3
