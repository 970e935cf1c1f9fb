"""The frame of every page: one file, no scripts, nothing loaded, light and dark."""

from __future__ import annotations

from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser holds a page to what it promises, whatever a row has in it."""

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --faint: #5c5c5c;
  --line: #d0d0d0; --on: #bfe8c4; --on-ink: #08340f; --mark: #8a4b00;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Hiragino Sans",
    "Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic UI", Meiryo, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #161616;
  --faint: #a2a2a2; --line: #3c3c3c; --on: #1f5c2a; --on-ink: #eafbec;
  --mark: #f0b060; } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 var(--sans); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
p.faint { color: var(--faint); }
"""


def page(
    title: str,
    body: str,
    style: str = "",
    *,
    lang: str = "en",
    lead: str = "",
    foot: str = "",
) -> str:
    """A whole document.

    Args:
        title: Plain text; it is escaped here.
        body: HTML, already escaped.
        style: CSS beside that of every page.
        lang: The language of what is not data.
        lead: HTML beside the title, such as a table of contents.
        foot: HTML after the body.
    """
    name = escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="{escape(lang)}">\n<head>\n'
        '<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<header>\n<h1>{name}</h1>\n{lead}</header>\n"
        f"<main>\n{body}\n</main>\n{foot}</body>\n</html>\n"
    )
