"""Before training: what the base model makes of the rows, and each objective of that.

One forward pass over a bounded sample; nothing is trained. The recommendation stands on
the very rows that ``train`` with ``auto`` looks at, which are always in the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mlx_rsft import config as configuration
from mlx_rsft.config import Resolved
from mlx_rsft.data.classes import CLASSES, CONTENT
from mlx_rsft.data.conversation import Example
from mlx_rsft.data.source import TRAIN
from mlx_rsft.errors import ConfigError, nearest
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import Objective, build
from mlx_rsft.objectives.effect import NUM_BINS, Effect, bins, effect, steps_to_learn
from mlx_rsft.report.probe import Weighed
from mlx_rsft.workflows import assemble, choosing, suspecting
from mlx_rsft.workflows.choosing import Chosen
from mlx_rsft.workflows.looking import Looked, known, look
from mlx_rsft.workflows.reporter import Reporter
from mlx_rsft.workflows.suspecting import Suspect

BASELINE = "sft"
USUAL = (BASELINE, "power:alpha=0.5", "dft:floor=0.1", "dft")
"""Objectives that are compared unless others are named."""
SHOWN_SUSPECTS, SHOWN_ROWS = 6, 6
"""Rows whose tokens a page shows."""
SLOW = 10.0
"""Times the steps of plain SFT from which learning the form is said to be slow."""
HARDEST = 0.1
"""The form of the answers is learned when all but this share of its tokens are."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Everything that is known before training.

    Attributes:
        recommended: The name of the chosen one among the objectives.
        effects: What each objective would do to the tokens, by its name.
        suspects: Rows whose answers look wrong, the worst first.
        can_compare: Whether the neighbours' answers have enough in common to judge.
    """

    model: str
    looked: Looked
    chosen: Chosen
    recommended: str
    objectives: dict[str, Objective]
    effects: dict[str, Effect]
    suspects: list[Suspect]
    can_compare: bool

    def as_record(self) -> dict[str, Any]:
        """The probe as ``--json`` prints it."""
        looked, overall = self.looked, choosing.prior(self.looked.by_row)
        return {
            "model": self.model,
            **asdict(overall),
            "rows_there_are": looked.num_rows,
            "histogram": self._histograms(),
            "classes": self._classes(),
            "tags": self._tags(),
            "objectives": [self._objective(name) for name in self.objectives],
            "suspects": [asdict(suspect) for suspect in self.suspects],
            "neighbours_agree": self.can_compare,
            "recommendation": {
                **asdict(self.chosen.choice),
                "rows": self.chosen.overall.rows,
                "remarks": self._remarks(),
            },
        }

    def _remarks(self) -> list[str]:
        """What else speaks for or against the recommendation, in sentences."""
        objective, rows = self.chosen.choice.objective, self.chosen.overall.rows
        said = [
            f"Chosen by the {rows} rows that train with auto looks at; the cut-offs come "
            "from the literature, so compare before you rely on it."
        ]
        every = choosing.decide(self.looked.rows, self.looked.by_row).choice.objective
        if every != objective:
            said.append(
                f"All {len(self.looked.rows)} rows together would say {every}: the data "
                "are near a cut-off, so try both."
            )
        slow = self._format_steps(self.objectives[self.recommended])
        plain = self._format_steps(self.objectives[BASELINE])
        if slow is not None and plain and slow > SLOW * plain:
            said.append(
                f"It needs some {slow / plain:.0f} times the steps of plain SFT to learn "
                "the form of your answers; a larger floor or schedule=staged helps."
            )
        if self.can_compare and self.suspects:
            share = len(self.suspects) / len(self.looked.rows)
            said.append(
                f"{share:.0%} of the rows look mislabelled: look at them first."
            )
        return said

    def shown(self) -> list[Weighed]:
        """Some rows with the weight of each token: the worst suspects, then others."""
        looked = self.looked
        first = {suspect.where: None for suspect in self.suspects[:SHOWN_SUSPECTS]}
        others = [row.where for row in looked.rows if row.where not in first]
        wanted = [*first, *others[:SHOWN_ROWS]]
        name = self.telling
        place = {row.where: number for number, row in enumerate(looked.rows)}
        logp = looked.by_row
        weights = choosing.by_row(looked.rows, self.effects[name].weight)
        kinds = choosing.by_row(looked.rows, looked.kinds)
        return [
            Weighed(
                where,
                looked.rows[at].spans,
                [looked.tokenizer.decode([token]) for token in looked.rows[at].tokens],
                np.exp(logp[at]).tolist(),
                weights[at].tolist(),
                [CLASSES[kind] for kind in kinds[at]],
                where in first,
            )
            for where, at in ((where, place[where]) for where in wanted)
        ]

    @property
    def telling(self) -> str:
        """The recommended objective, or the first whose weights are not all alike."""
        names = [self.recommended, *self.objectives]
        return next((n for n in names if np.ptp(self.effects[n].weight) > 0), names[0])

    def _histograms(self) -> dict[str, list[int]]:
        """Tokens by probability, in ``NUM_BINS`` equal bins from 0 to 1."""
        bin_of, kinds = bins(self.looked.p), self.looked.kinds
        members = {"all": kinds >= 0}
        members |= {name: kinds == place for place, name in enumerate(CLASSES)}
        return {
            name: np.bincount(bin_of[mask], minlength=NUM_BINS).tolist()
            for name, mask in members.items()
        }

    def _classes(self) -> dict[str, dict[str, float]]:
        looked = self.looked
        logp = np.array(looked.stats.logp, np.float64)
        found: dict[str, dict[str, float]] = {}
        for place, name in enumerate(CLASSES):
            mask = looked.kinds == place
            if mask.any():
                found[name] = {
                    "tokens": int(mask.sum()),
                    "mean_p": float(looked.p[mask].mean()),
                    "nll": float(-logp[mask].mean()),
                }
        return found

    def _tags(self) -> dict[str, Any]:
        pairs = list(zip(self.looked.rows, self.looked.by_row, strict=True))
        tags = sorted({tag for row, _ in pairs for tag in row.tags})
        return {
            tag: asdict(choosing.prior([p for row, p in pairs if tag in row.tags]))
            for tag in tags
        }

    def _objective(self, name: str) -> dict[str, Any]:
        objective, found = self.objectives[name], self.effects[name]
        shares = found.share(self.looked.kinds, len(CLASSES))
        steps = self._format_steps(objective)
        plain = self._format_steps(self.objectives[BASELINE])
        return {
            "objective": name,
            "trained": found.trained,
            "ess": found.ess,
            "mean_weight": float(found.weight.mean()),
            "gradient": found.share(bins(self.looked.p), NUM_BINS),
            "gradient_by_class": dict(zip(CLASSES, shares, strict=True)),
            "format_steps": steps,
            "format_learned": None if steps is None else math.isfinite(steps),
            "format_slowdown": steps / plain if plain and steps is not None else None,
            "pull_left_out": any(not pull.needs_reference for pull in objective.pulls),
        }

    def _format_steps(self, objective: Objective) -> float | None:
        """Steps until the form of the answers and their ends are learned."""
        looked = self.looked
        plain = known(looked, objective).plain
        spared = np.zeros(len(looked.kinds), bool) if plain is None else np.array(plain)
        form = looked.kinds != CLASSES.index(CONTENT)
        found: list[float] = []
        for mask, taught_by in (
            (form & ~spared, objective),
            (form & spared, self.objectives[BASELINE]),
        ):
            if mask.any():
                p0 = float(np.quantile(looked.p[mask], HARDEST))
                steps = steps_to_learn(taught_by, p0)
                if steps is None:
                    return None
                found.append(steps)
        return max(found, default=None)


def probe(
    resolved: Resolved, names: Sequence[str], num_rows: int, reporter: Reporter
) -> Probe:
    """Look at the training rows with the base model.

    Args:
        resolved: Settings with a model and data.
        names: Objectives to compare; none: the usual ones.
        num_rows: Rows to look at, drawn by the seed.
        reporter: Told what is loaded and how far it is.

    Raises:
        RsftError: Whatever is wrong with settings, objectives, data or model.
    """
    config = resolved.config
    configuration.require(config, "model.source", "data.source")
    wanted = [build({"name": name}) for name in names or USUAL]
    if not assemble.is_auto(config):
        wanted.append(build(config.objective))
    paths = assemble.training_paths(config)
    loaded = assemble.model(config, reporter)
    rows = assemble.splits(paths, config, loaded, reporter).rows[TRAIN]
    _check_tags(wanted, rows)
    deciding = choosing.sampled(rows, config.seed)
    drawn = choosing.shuffled(len(rows), config.seed)[:num_rows]
    places = list(dict.fromkeys([*deciding, *drawn]))
    sample, split = [rows[place] for place in places], SplitModel(loaded.model)
    facts = frozenset({"collision"}.union(*(built.head_facts for built in wanted)))
    looked = look(split, sample, len(rows), facts, loaded.tokenizer, reporter)
    num_deciding = len(deciding)
    chosen = choosing.decide(sample[:num_deciding], looked.by_row[:num_deciding])
    recommended = build({"name": chosen.choice.objective})
    objectives = {
        str(built): built for built in [build({"name": BASELINE}), *wanted, recommended]
    }
    suspects, can_compare = suspecting.suspects(sample, looked.by_row, loaded.tokenizer)
    return Probe(
        config.model.source,
        looked,
        chosen,
        str(recommended),
        objectives,
        {
            name: effect(built, replace(looked.stats, known=known(looked, built)))
            for name, built in objectives.items()
        },
        suspects,
        can_compare,
    )


def _check_tags(objectives: Sequence[Objective], rows: Sequence[Example]) -> None:
    """Refuse an objective for rows that are not there."""
    tagged = [built for built in objectives if built.composition.where]
    present = {tag for row in rows for tag in row.tags} if tagged else set[str]()
    for built in tagged:
        for tag in built.composition.where:
            if tag not in present:
                raise ConfigError(
                    f"No training row has the tag {tag!r}.",
                    where=f"objective {str(built)!r}",
                    hint=nearest(tag, present) if present else "No row has any tag.",
                )
