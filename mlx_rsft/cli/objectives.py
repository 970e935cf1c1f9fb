"""``mlx-rsft objectives``."""

from __future__ import annotations

from dataclasses import asdict

import click

from mlx_rsft.cli import console, options


@click.group("objectives", invoke_without_command=True)
@options.as_json
@click.pass_context
def command(context: click.Context, *, as_json: bool) -> None:
    """List the objectives, and when to use which.

    Every one also takes: floor=F, anchor=kl or k3 with lambda=L, schedule=ramp or
    staged with until=SHARE, normalise=token, weight or sequence, where=TAG+TAG, and
    keep=end or special.
    """
    if context.invoked_subcommand is not None:
        return
    from mlx_rsft.objectives import OBJECTIVES

    if as_json:
        rows = {
            name: {"weight": e.formula, "when": e.about, "source": e.source}
            for name, e in OBJECTIVES.items()
        }
        console.emit_json({"objectives": rows})
        return
    console.table(
        ["objective", "weight", "when", "source"],
        [[name, e.formula, e.about, e.source] for name, e in OBJECTIVES.items()],
        left=True,
    )


@command.command("show", epilog="Example: mlx-rsft objectives show dft:floor=0.1")
@click.argument("objective", metavar="NAME[:KEY=VALUE,...]")
@options.as_json
def show(objective: str, *, as_json: bool) -> None:
    """Plot an objective over the probability p of a token.

    Draws its weight, and how hard it pushes the token's logit up: weight times (1 - p).
    """
    from mlx_rsft.objectives import OBJECTIVES, build
    from mlx_rsft.objectives.curve import curve

    built = build({"name": objective})
    points = curve(built)
    if as_json:
        console.emit_json(
            {"objective": str(built), "points": [asdict(point) for point in points]}
        )
        return
    entry = OBJECTIVES[built.name]
    console.emit(f"{built}: weight {entry.formula}; {entry.about} ({entry.source})")
    most = max([1e-9, *(abs(point.weight) for point in points)])
    hardest = max([1e-9, *(abs(point.push) for point in points)])
    console.emit(f"   p  {'weight':{console.BAR_WIDTH + 7}}  push on the logit")
    for point in points:
        weight = f"{console.bar(point.weight / most)} {point.weight:6.3f}"
        push = f"{console.bar(point.push / hardest)} {point.push:6.3f}"
        console.emit(f"{point.p:4.2f}  {weight}  {push}")
