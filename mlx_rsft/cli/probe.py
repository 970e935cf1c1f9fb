"""``mlx-rsft probe``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from mlx_rsft.cli import console, options

ROWS = 512
SHOWN = 8
"""Suspects that are printed."""
ANSWER_WIDTH = 60


@click.command(
    "probe",
    epilog="Example: mlx-rsft probe --model demo --data data --objective dft "
    "--objective dft:floor=0.1 --html probe.html --suspects suspects.csv",
)
@options.setting_flags(
    "model.source",
    "data.source",
    *options.READING,
    "data.max_length",
    "data.overlong",
    "model.precision",
    "model.quantize",
    "model.trust_remote_code",
    "seed",
)
@click.option(
    "--objective",
    "objectives",
    multiple=True,
    metavar="NAME[:KEY=VALUE,...]",
    help="Compare this one; may be repeated. sft and the recommended one are always "
    "there.  [default: power:alpha=0.5, dft:floor=0.1, dft]",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=ROWS,
    show_default=True,
    help="Look at so many training rows, drawn by the seed, and at those that train "
    "would choose the objective by.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a page, with the tokens of some rows coloured by weight.",
)
@click.option(
    "--suspects",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Write the rows that look mislabelled, with a column to correct them in; "
    "data fix takes it.",
)
@options.as_json
def command(
    config_file: Path | None,
    assignments: tuple[str, ...],
    objectives: tuple[str, ...],
    rows: int,
    html: Path | None,
    suspects: Path | None,
    *,
    as_json: bool,
) -> None:
    """Look at your rows with the bare model, before training.

    How likely it finds the answers, what each objective would make of that, which rows
    look mislabelled, and which objective to use and why. One pass, no training; the
    recommendation is what train does with --objective auto.
    """
    from mlx_rsft.report import probe as report
    from mlx_rsft.workflows import suspecting
    from mlx_rsft.workflows.check import save_text
    from mlx_rsft.workflows.probe import probe

    settings = options.resolved(config_file, assignments)
    reporter = console.TerminalReporter()
    found = probe(settings, objectives, rows, reporter)
    record = found.as_record()
    if suspects is not None:
        suspecting.save(found.suspects, suspects)
        reporter.note(f"{len(found.suspects)} suspect rows: {suspects}")
    if html is not None:
        save_text(report.probe_page(record, found.shown(), found.telling), html)
        reporter.note(f"page: {html}")
    if as_json:
        console.emit_json(record)
    else:
        _show(record, seed=settings.config.seed)


def _show(record: Mapping[str, Any], *, seed: int) -> None:
    for line in _heard(record, seed):
        console.emit(line)
    console.emit("")
    _show_objectives(record)
    console.emit("")
    _show_bins(record)
    console.emit("")
    _show_suspects(record)
    console.emit("")
    advice = record["recommendation"]
    console.emit(f"recommended: --objective {advice['objective']}")
    for reason in (advice["reason"], *advice["remarks"]):
        console.emit(f"  {reason}")


def _heard(record: Mapping[str, Any], seed: int) -> Iterator[str]:
    """What the base model makes of the rows, and how many of them were asked about."""
    rows, all_rows = record["rows"], record["rows_there_are"]
    drawn = f"{rows} of {all_rows} training rows, drawn by seed {seed}"
    which = f"all {rows} training rows" if rows == all_rows else drawn
    yield (
        f"{which}: {record['tokens']} trained tokens, mean probability p "
        f"{record['mean_p']:.3f}, NLL {record['nll']:.2f} nats/token"
    )
    for name, of_class in record["classes"].items():
        yield (
            f"  {ABOUT[name]:32} {of_class['tokens']:7} tokens, mean p "
            f"{of_class['mean_p']:.3f}, NLL {of_class['nll']:.2f}"
        )
    for tag, of_tag in record["tags"].items():
        yield (
            f"  rows tagged {tag:20.20} {of_tag['tokens']:7} tokens, mean p "
            f"{of_tag['mean_p']:.3f}, NLL {of_tag['nll']:.2f}"
        )


ABOUT = {
    "content": "content of the answers",
    "template": "form that the answers share",
    "end": "end of turn",
}


def _show_bins(record: Mapping[str, Any]) -> None:
    """Tokens by probability, and how each objective shares its gradient among them."""
    counts = _halved(record["histogram"]["all"])
    most, total = max(*counts, 1), max(sum(counts), 1)
    shares = [_halved(entry["gradient"]) for entry in record["objectives"]]
    names = [entry["objective"] for entry in record["objectives"]]
    keys = [chr(ord("A") + place) for place in range(len(names))]
    console.emit("Tokens by p, and where the gradient of A, B, ... comes from:")
    console.emit(
        f"p        {'':{console.BAR_WIDTH}} tokens {''.join(map(_cell, keys))}"
    )
    for place, count in enumerate(counts):
        edges = f"{place / 10:.1f}-{(place + 1) / 10:.1f}"
        cells = "".join(_cell(f"{share[place]:.0%}") for share in shares)
        bar = console.bar(count / most)
        console.emit(f"{edges}  {bar} {count / total:6.0%} {cells}")


def _cell(text: str) -> str:
    return f"{text:>6}"


def _halved(values: Sequence[float]) -> list[float]:
    """Pairs of neighbouring bins as one."""
    return [a + b for a, b in zip(values[::2], values[1::2], strict=True)]


def _show_objectives(record: Mapping[str, Any]) -> None:
    from mlx_rsft.report.probe import slowdown

    console.emit(
        "Trained: share of tokens that weigh at least 0.1, plain SFT giving 1. "
        "Effective: sample\nsize of the weights. Form: steps until the answers' form is "
        "learned, times those of\nplain SFT; a rough law, the schedule left out."
    )
    rows = [
        [
            f"{chr(ord('A') + place)}  {entry['objective']}",
            f"{entry['trained']:.0%}",
            f"{entry['ess']:.0%}",
            f"{entry['gradient_by_class']['content']:.0%}",
            slowdown(entry),
        ]
        for place, entry in enumerate(record["objectives"])
    ]
    columns = ["objective", "trained", "effective", "gradient on content", "form"]
    console.table(columns, rows)
    for entry in record["objectives"]:
        if entry["pull_left_out"]:
            console.emit(f"  {entry['objective']}: its pull is not in these figures.")


def _show_suspects(record: Mapping[str, Any]) -> None:
    found, rows = record["suspects"], record["rows"]
    if not record["neighbours_agree"]:
        console.emit(
            "Answers differ too much to be held against those of similar prompts; "
            f"the {len(found)} least likely:"
        )
    else:
        console.emit(
            f"{len(found)} of {rows} rows look mislabelled: rows with similar prompts "
            "answer otherwise."
        )
    for suspect in found[:SHOWN]:
        console.emit(f"  {suspect['where']}  p {suspect['mean_p']:.3f}")
        console.emit(f"      says        {_short(suspect['answer'])}")
        if suspect["neighbours_say"]:
            console.emit(f"      others say  {_short(suspect['neighbours_say'])}")
    if len(found) > SHOWN:
        console.emit(
            f"  ... and {len(found) - SHOWN} more; --suspects FILE.csv has all"
        )


def _short(text: str) -> str:
    from mlx_rsft.report.tokens import visible

    line = visible(" ".join(text.split()))
    return line if len(line) <= ANSWER_WIDTH else f"{line[: ANSWER_WIDTH - 3]}..."
