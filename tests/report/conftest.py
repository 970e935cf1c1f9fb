"""A realistic comparison, as ``compare`` would write it: four objectives, three splits."""

from __future__ import annotations

import copy
import json
import math
from html.parser import HTMLParser
from typing import Any

import pytest

SPLITS = {"test": 96, "new_parts_and_stations": 96, "new_phrasings": 96}
ARMS = {
    "base": ("", (0.0, 0.0, 0.0)),
    "sft": ("sft", (0.938, 0.729, 0.458)),
    "dft": ("dft", (0.0, 0.0, 0.0)),
    "dft:floor=0.1": ("dft:floor=0.1", (1.0, 0.979, 0.406)),
    "staged": (
        "dft:floor=0.1,schedule=staged,until=0.3,anchor=kl,lambda=0.05",
        (0.989, 0.958, 0.427),
    ),
}
SEEDS = (0, 1, 2)
STEPS = (0, 10, 20, 40, 60, 80)
HOSTILE = (
    '</pre></article><script>alert("x")</script><img src=x onerror=alert(1)>\u202e'
)
JAPANESE = (
    "三号機の主軸から異音がします。回転数が毎分三千を超えると振動が大きくなり、油温も"
    "通常より十度ほど高い状態です。先週交換した軸受の締結部を確認しましたが、緩みは"
    "見当たりませんでした。過去の類似事例と推奨される処置を教えてください。"
)


def metric(value: float, unit: str = "fraction", n: int = 288) -> dict[str, Any]:
    half = 0.02 + 0.05 * math.sqrt(max(value * (1 - value), 0)) if n else None
    low, high = max(value - half, 0), min(value + half, 1)
    if unit != "fraction":
        low, high = value * 0.93, value * 1.07
    return {
        "value": value,
        "unit": unit,
        "n": n,
        "stderr": half / 2,
        "low": low,
        "high": high,
    }


def _arm(place: int, name: str) -> dict[str, Any]:
    objective, values = ARMS[name]
    splits = {
        split: {
            "rows": rows,
            "tokens": rows * 12,
            "metrics": {
                "exact_match": metric(value),
                "nll": metric(0.05 + 1.4 * (1 - value), "nats/token"),
                "token_accuracy": metric(0.6 + 0.4 * value),
            },
        }
        for (split, rows), value in zip(SPLITS.items(), values, strict=True)
    }
    arm = {"name": name, "objective": objective, "splits": splits, "diverged": False}
    if name == "base":
        unknown = dict.fromkeys(("objective", "learning_rate", "cost", "training"))
        return arm | {"seeds": []} | unknown
    weight = {"sft": (1.0, 1.0, 1.0), "dft": (0.01, 0.0004, 0.002)}.get(
        name, (0.71, 0.93, 0.98)
    )
    return arm | {
        "seeds": list(SEEDS),
        "learning_rate": 0.001,
        "cost": {
            "seconds": 318.4 + 3 * place,
            "joules": None if name == "staged" else 9100.0 + place,
            "peak_bytes": 1_213_000_000 + 9_000_000 * place,
            "tokens": 138_240,
        },
        "training": {
            "mean_p": 0.83,
            "ess": None if name == "dft" else 0.91,
            "weight_by_class": dict(
                zip(("content", "template", "end"), weight, strict=True)
            ),
        },
    }


def _differences() -> list[dict[str, Any]]:
    found = []
    for name in ("dft", "dft:floor=0.1", "staged"):
        for place, (split, rows) in enumerate(SPLITS.items()):
            size = ARMS[name][1][place] - ARMS["sft"][1][place]
            p = 0.0004 if abs(size) > 0.1 else 0.18
            found.append(
                {
                    "split": split,
                    "metric": "exact_match",
                    "arm": name,
                    "baseline": "sft",
                    "difference": size,
                    "low": size - 0.09,
                    "high": size + 0.085,
                    "p_value": p,
                    "p_adjusted": min(3 * p, 1),
                    "n": rows,
                    "seeds": 3,
                    "detectable": 0.09,
                    "test": "bootstrap",
                    "better": "higher",
                }
            )
    return found


def _curves() -> list[dict[str, Any]]:
    points = []
    for name in list(ARMS)[1:]:
        for place, split in enumerate(SPLITS):
            for seed in SEEDS:
                for step in STEPS:
                    value = ARMS[name][1][place] * (1 - math.exp(-step / 15))
                    value *= 1 - 0.04 * seed * (0 < step < 70)
                    point = {"arm": name, "seed": seed, "step": step, "split": split}
                    points.append(point | {"metric": "exact_match", "value": value})
    return points


def _effects() -> list[dict[str, Any]]:
    effects = []
    for place, name in enumerate(ARMS):
        drift = None if name == "base" else 0.11 * place
        shared = {"arm": name}
        effects += [
            shared
            | {
                "metric": "drift_kl",
                "set": "generic",
                "value": drift,
                "low": None if drift is None else drift * 0.9,
                "high": None if drift is None else drift * 1.1,
                "unit": "nats/token",
                "better": "lower",
            },
            shared
            | {
                "metric": "retention",
                "set": "generic",
                "value": 1 - 0.06 * place,
                "low": 0.9 - 0.06 * place,
                "high": 1.0,
                "unit": "fraction",
                "better": "higher",
            },
        ]
    return effects


def _examples() -> list[dict[str, Any]]:
    return [
        {
            "split": "new_parts_and_stations",
            "row": 17,
            "prompt": JAPANESE,
            "reference": "不具合: 軸受の摩耗; 処置: 軸受を交換し、潤滑油の銘柄と量を点検",
            "answers": {
                "sft": "不具合: 緩み; 処置: 増し締め",
                "dft": "",
                "dft:floor=0.1": "不具合: 軸受の摩耗; 処置: 軸受を交換し、潤滑油の銘柄と量を点検",
            },
            "right": {"sft": False, "dft": False, "dft:floor=0.1": True},
        },
        {
            "split": "new_phrasings",
            "row": 4,
            "prompt": "spindle noisy at 3000 rpm, st. 12\nsecond shift, again",
            "reference": "defect: bearing; action: replace",
            "answers": {"sft": "defect: bearing; action: replace", "staged": HOSTILE},
            "right": {"sft": True},
        },
        {
            "split": "test",
            "row": None,
            "prompt": "x" * 300,
            "reference": "long " * 600,
            "answers": {"sft": "a"},
            "right": {"sft": None},
        },
    ]


def build() -> dict[str, Any]:
    """The record, made anew."""
    before = [400, 210, 160, 120, 100, 90, 80, 70, 70, 60]
    before += [60, 60, 60, 70, 70, 80, 90, 120, 200, 410]
    after = [30, 20, 14, 10, 9, 9, 8, 8, 8, 10, 12, 14, 20, 30, 50, 80, 140, 260, 500]
    after.append(1358)
    return {
        "version": "0.1",
        "model": "SmolLM2-135M-Instruct",
        "data": "factory/保全記録_2026年度_第三工場_全設備.jsonl",
        "created": "2026-11-24T12:00:00+09:00",
        "seeds": list(SEEDS),
        "steps": 80,
        "level": 0.05,
        "splits": {
            name: {
                "rows": rows,
                "tokens": rows * 12,
                "role": "in" if name == "test" else "shifted",
            }
            for name, rows in SPLITS.items()
        },
        "baseline": "sft",
        "arms": [_arm(place, name) for place, name in enumerate(ARMS)],
        "differences": _differences(),
        "curves": _curves(),
        "histograms": {
            "bins": 20,
            "before": before,
            "after": {"sft": after, "dft:floor=0.1": after, "dft": before},
        },
        "side_effects": _effects(),
        "examples": _examples(),
        "verdict": "go",
        "reason": "dft:floor=0.1 beats sft on new_parts_and_stations; no harm elsewhere.",
        "limits": ["30 % of the training labels are wrong on purpose."],
        "method": {
            "bootstrap": 10000,
            "grid": [0.3, 1, 3],
            "tuned": False,
            "energy": None,
        },
    }


def bare() -> dict[str, Any]:
    """The least that the contract asks for, with nothing known."""
    unknown = dict.fromkeys(("value", "n", "stderr", "low", "high")) | {"unit": "x"}
    return {
        "arms": [{"name": "sft", "splits": {"test": {"metrics": {"m": unknown}}}}],
        "differences": [],
        "verdict": "undecided",
        "reason": "",
    }


@pytest.fixture
def record() -> dict[str, Any]:
    """A rich record; a test may change it."""
    return copy.deepcopy(build())


@pytest.fixture(scope="session")
def long_names() -> dict[str, Any]:
    """A rich record with names as long as people make them; not to be changed."""
    text = json.dumps(build())
    for old, new in (
        ("staged", "power:alpha=0.5,floor=0.05,schedule=staged,until=0.3,anchor=kl"),
        ("new_phrasings", "第三工場_夜勤_新しい言い回し_2026年度後期"),
    ):
        text = text.replace(f'"{old}"', json.dumps(new))
    return json.loads(text)


@pytest.fixture
def bare_record() -> dict[str, Any]:
    """A record with every optional part missing."""
    return bare()


class Reader(HTMLParser):
    """A page as a browser without mercy reads it: every element is closed."""

    void = ("meta", "wbr")

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.attributes = [], [], []
        self.addresses, self.policy = [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def read():
    """Reads a page, or fails where an element is not closed."""

    def reading(text: str) -> Reader:
        reader = Reader()
        reader.feed(text)
        reader.close()
        assert not reader.open
        return reader

    return reading
