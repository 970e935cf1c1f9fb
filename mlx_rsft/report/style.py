"""How a comparison looks: on a desk, on a phone, in the dark and on paper."""

from __future__ import annotations

from collections.abc import Mapping

from mlx_rsft.report import drawing

LIGHT = {
    "ink": "#1b1f24",
    "paper": "#f6f7f9",
    "card": "#ffffff",
    "faint": "#59626e",
    "line": "#dde1e6",
    "link": "#1a56b0",
    "better": "#0a6b45",
    "worse": "#b3261e",
    "unclear": "#59626e",
    "go": "#0a6b45",
    "no-go": "#b3261e",
    "undecided": "#7a5200",
    "trough": "#e6e9ee",
    "s0": "#59626e",
    "s1": "#1a5fd0",
    "s2": "#b4500b",
    "s3": "#0a7a5e",
    "s4": "#8a3aa8",
    "s5": "#c2244e",
    "s6": "#6f6a00",
    "s7": "#08708f",
}
DARK = {
    "ink": "#e8ebef",
    "paper": "#101317",
    "card": "#191d23",
    "faint": "#a3adb9",
    "line": "#323942",
    "link": "#8ab8ff",
    "better": "#5fd3a0",
    "worse": "#ff8f85",
    "unclear": "#a3adb9",
    "go": "#5fd3a0",
    "no-go": "#ff8f85",
    "undecided": "#f0c060",
    "trough": "#2a3038",
    "s0": "#a9b3bf",
    "s1": "#7fb2ff",
    "s2": "#f3a662",
    "s3": "#5ed0ab",
    "s4": "#d49df2",
    "s5": "#ff8fa8",
    "s6": "#d2ca5c",
    "s7": "#6fd0ea",
}


def _variables(scheme: Mapping[str, str]) -> str:
    return " ".join(f"--{key}: {colour};" for key, colour in scheme.items())


LAYOUT = """
* { box-sizing: border-box; }
body { max-width: 74rem; margin: 0 auto; padding: 2rem 1.25rem 3rem;
  line-break: strict; overflow-wrap: break-word; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
section { margin-top: 3rem; scroll-margin-top: 1rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible {
  outline: 2px solid var(--link); outline-offset: 2px; }
small { font-size: .8125rem; }
dl, dd, figure { margin: 0; }
.name { overflow-wrap: anywhere; } table .name { overflow-wrap: break-word; }
p wbr, li wbr, dd wbr { display: none; }
.whole { white-space: nowrap; }
li .name, p .name { padding: .05rem .3rem; border-radius: .25rem;
  background: var(--trough); box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }
.legend .name { background: none; padding: 0; }
b, td small { white-space: nowrap; }
.about { color: var(--faint); max-width: 48rem; margin: 0 0 1rem; }
.better, .right { color: var(--better); --c: var(--better); }
.worse, .wrong { color: var(--worse); --c: var(--worse); }
.changed { --c: var(--ink); }
.unclear, .not_judged { color: var(--unclear); --c: var(--unclear); }
.facts { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.facts dt, .tiles dt, .reason dt { color: var(--faint); font-size: .8125rem; }
.facts dd { font-variant-numeric: tabular-nums; }
nav ul, .legend { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem;
  padding: 0; margin: 1.25rem 0 0; }
nav ul { border-top: 1px solid var(--line); padding-top: .75rem; }
nav a { display: inline-block; padding: .2rem 0; text-decoration: none; }
nav a:hover { text-decoration: underline; }
.legend { margin: 0 0 1rem; }
.legend li { display: flex; align-items: center; gap: .4rem; }
.legend .key { flex: none; }
.verdict, figure, .example, .scroll { background: var(--card);
  border: 1px solid var(--line); border-radius: .6rem; }
.verdict { --c: var(--undecided); padding: 1.25rem 1.5rem; border-left: .4rem solid
  var(--c); }
.verdict.go { --c: var(--go); } .verdict.no-go { --c: var(--no-go); }
.stamp { display: flex; align-items: center; gap: .6rem; margin: 0; font-size: 1.6rem;
  line-height: 1.2; color: var(--c); }
.sign { flex: none; display: grid; place-items: center; width: 2.1rem; height: 2.1rem;
  border: .2rem solid var(--c); border-radius: 50%; font-size: 1.15rem;
  font-weight: 700; }
.headline { font-size: 1.2rem; line-height: 1.45; margin: .6rem 0 1.1rem;
  max-width: 48rem; }
.tiles { display: grid; gap: .75rem; margin: 0 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(13rem, 100%), 1fr)); }
.tiles > div { border-top: 1px solid var(--line); padding-top: .6rem; }
.tiles b { display: block; font-size: 1.7rem; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tiles small { display: block; } .tiles small:not([class]) { color: var(--faint); }
.verdict ul, .verdict ol { margin: 0; } .verdict li, .failed li, ol > li {
  max-width: 52rem; margin: .35rem 0; }
ul, ol { padding-left: 1.3rem; }
.failed li::marker { content: "✕  "; color: var(--worse); font-weight: 700; }
.reason { margin-top: 1rem; }
.plots { display: grid; gap: 1rem; align-items: start; margin: 0 0 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { padding: .9rem 1rem; min-width: 0; }
figcaption { font-weight: 600; margin-bottom: .6rem; }
figcaption small { display: block; font-weight: 400; color: var(--faint); }
svg .trough { fill: var(--trough); }
svg .before { --c: var(--ink); stroke-dasharray: 4 2; }
.scroll { overflow-x: auto; margin: 0 0 1.25rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); }
th, td { text-align: left; vertical-align: top; padding: .6rem 1rem;
  border-top: 1px solid var(--line); }
th small, td small { display: block; font-weight: 400; }
th small, td small:not([class]) { color: var(--faint); }
thead th { border-top: 0; color: var(--faint); font-size: .8125rem; font-weight: 600;
  vertical-align: bottom; min-width: 6.5rem; }
tbody th { font-weight: 600; min-width: 9rem; }
td .of { display: none; } td .cell { display: block; }
.meter { display: block; height: .3rem; margin: .3rem 0; border-radius: .15rem;
  background: var(--trough); max-width: 9rem; }
.meter i { display: block; height: 100%; border-radius: inherit;
  background: var(--c, var(--faint)); }
details { margin: 0 0 1.25rem; } summary { cursor: pointer; padding: .3rem 0; }
.example { padding: .2rem 1.25rem 1rem; margin: 0 0 1rem; }
.example dl { display: grid; gap: .75rem; grid-template-columns:
  repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); }
.example dl > div { min-width: 0; }
.example dt { font-size: .875rem; font-weight: 600; margin-bottom: .25rem; }
.example dt small { font-weight: 600; white-space: nowrap; }
pre { margin: 0; padding: .5rem .7rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .875rem/1.55 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono",
    "Noto Sans Mono CJK JP", var(--sans), monospace;
  background: var(--paper); border-radius: .35rem; }
.empty { margin: 0; color: var(--faint); }
footer { margin-top: 3rem; border-top: 1px solid var(--line); color: var(--faint);
  font-size: .875rem; }
"""
PHONE = """
@media (max-width: 40rem) {
  body { padding: 1.25rem .9rem 2rem; }
  .verdict { padding: 1rem 1rem; } .headline { font-size: 1.1rem; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  table, tbody, tr, td, tbody th { display: block; }
  tbody tr { padding: .6rem 1rem; border-top: 1px solid var(--line); }
  th, td { border: 0; padding: .15rem 0; }
  td { display: grid; grid-template-columns: 9rem minmax(0, 1fr); gap: .75rem; }
  td .of { display: block; color: var(--faint); font-size: .8125rem; }
  table .name { overflow-wrap: anywhere; }
  .meter { max-width: none; }
}
"""
PRINT = """
@media print {
  @page { margin: 14mm; }
  :root { color-scheme: light; font-size: 9.5pt; VARIABLES }
  body { max-width: none; padding: 0; background: none; }
  nav { display: none; }
  section { margin-top: 1.5rem; }
  h2, h3, figcaption, .about { break-after: avoid; }
  figure, .verdict, .example, tr, li { break-inside: avoid; }
  .scroll { overflow: visible; }
  th, td { padding: .3rem .4rem; } thead th, tbody th { min-width: 0; }
  details::details-content { content-visibility: visible; block-size: auto; }
  .meter, .meter i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
STYLE = (
    f":root {{ {_variables(LIGHT)} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n"
    + LAYOUT
    + drawing.STYLE
    + PHONE
    + PRINT.replace("VARIABLES", _variables(LIGHT))
)
