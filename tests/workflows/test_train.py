import datetime
import itertools
import json
import re
import time
from pathlib import Path

import pytest

from mlx_rsft import ledger, records
from mlx_rsft.config import FLAG, Layer, resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.workflows import audit, story, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import Listening, outcome, short_run


def test_a_metric_that_is_none_stops_a_run_before_its_model_is_looked_for(tmp_path):
    given = {
        "model.source": str(tmp_path / "nowhere"),
        "data.source": str(tmp_path / "nowhere"),
        "evaluation.metrics": "perplexty",
    }
    with pytest.raises(ConfigError, match="no metric 'perplexty'"):
        train.prepare(resolve([Layer(FLAG, given)]), tmp_path / "run", Silent())


def test_no_file_of_a_run_holds_a_token_of_the_hub(
    tmp_path, tiny_folder, tiny_data, monkeypatch
):
    tokens = {
        name: f"hf_secret{number}"
        for number, name in enumerate(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    }
    for name, value in tokens.items():
        monkeypatch.setenv(name, value)
    settings = short_run(tiny_folder, tiny_data, training__steps=2)
    folder, listener = tmp_path / "run", Listening()
    train.train(train.prepare(settings, folder, listener), folder, listener)
    told = list(story.told(story.read(folder)))
    held = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert len(held) > 8
    for value in tokens.values():
        assert not any(value.encode() in text for text in held)
        assert not any(value in text for text in [*listener.done, *told])


JUMPS = (0, 5 * 3600, -9 * 3600, 3600 * 24 * 400, -1)
"""Seconds that the clock on the wall is put forward or back, one after another."""


def test_a_clock_that_is_put_forward_and_back_changes_no_time_and_no_result(
    tmp_path, tiny_folder, tiny_data, monkeypatch
):
    more = {"training__steps": 5, "training__checkpoint_every": 2}
    settings = short_run(tiny_folder, tiny_data, objective__name="sft", **more)
    plain, jumped = tmp_path / "plain", tmp_path / "jumped"
    train.train(train.prepare(settings, plain, Silent()), plain, Silent())
    real, jumps = datetime.datetime, itertools.cycle(JUMPS)

    class Jumping(real):
        @classmethod
        def now(cls, tz=None):
            return real.now(tz) + datetime.timedelta(seconds=next(jumps))

    monkeypatch.setattr(datetime, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: 1e9 + next(jumps))
    result = train.train(train.prepare(settings, jumped, Silent()), jumped, Silent())
    monkeypatch.undo()
    assert 0 < result["training_seconds"] <= result["seconds"] < 120
    assert outcome(jumped) == outcome(plain)
    steps = records.read_lines(jumped / "steps.jsonl")
    assert all(0 < step["tokens_per_s"] < 1e9 for step in steps)
    card = json.loads((jumped / "manifest.json").read_text())
    stamps = [card["started"], card["finished"]]
    stamps += [event["time"] for event in ledger.read(jumped).events]
    assert all(real.fromisoformat(stamp).tzinfo for stamp in stamps)
    assert stamps != sorted(stamps)
    assert audit.verify(jumped).findings == ()
    assert list(story.told(story.read(jumped)))


def test_nothing_takes_its_durations_from_the_clock_on_the_wall():
    package = Path(train.__file__).parents[1]
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"time\.time\(|datetime\.now\(|utcnow", path.read_text("utf-8"))
    }
    # A stamp; when a server was started; the hour at which a pilot will be done.
    assert users == {"manifest.py", "serving/server.py", "workflows/sized.py"}
