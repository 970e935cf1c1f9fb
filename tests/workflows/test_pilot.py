import json
import re
import shutil
import time

import click
import pytest

from mlx_rsft import config as configuration
from mlx_rsft import evaluation
from mlx_rsft.cli.main import group
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.data.source import find_splits
from mlx_rsft.errors import CheckFailed, ConfigError, DataError, Interrupted, RunError
from mlx_rsft.evaluation import general, refusals, tokenwise
from mlx_rsft.workflows import compare, decided, gathered, pace, pilot, sized
from mlx_rsft.workflows.pilot import Request
from mlx_rsft.workflows.reporter import Silent


def _asked(model="", data="", **changes):
    values = {
        "adapter.layers": "last:1",
        "adapter.rank": 2,
        "training.steps": 4,
        "training.batch_size": 4,
        "optimizer.learning_rate": 0.02,
        **({"model.source": str(model)} if model else {}),
        **({"data.source": str(data)} if data else {}),
        **{name.replace("__", "."): value for name, value in changes.items()},
    }
    return configuration.resolve([Layer(FLAG, values)])


def _request(out, **changes):
    return Request(out, **{"minutes": 30.0, "targets": ("mlx",), **changes})


class Listening(Silent):
    """Keeps what was said and done, in order."""

    def __init__(self):
        self.done = []

    def note(self, text):
        self.done.append(text)

    def task(self, title, total):
        self.done.append(title)
        return super().task(title, total)


class Watching(Listening):
    """Also keeps which rows a model has read, and the plan when training begins."""

    def __init__(self, out):
        super().__init__()
        self.plan = None
        self.out = out

    def task(self, title, total):
        if title.startswith("train ") and self.plan is None:
            self.plan = json.loads((self.out / "pilot.json").read_text())
        return super().task(title, total)

    def wrapped(self, function, place):
        def read(*given, **more):
            self.done.append({row.where.rsplit("/", 1)[1] for row in given[place]})
            return function(*given, **more)

        return read


@pytest.fixture(scope="module")
def piloted(tmp_path_factory, tiny_folder, tiny_data):
    """One finished pilot: folder, record, and who watched it; not to be changed."""
    out = tmp_path_factory.mktemp("piloted") / "out"
    watcher = Watching(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "measure", watcher.wrapped(evaluation.measure, 2))
        patch.setattr(tokenwise, "read", watcher.wrapped(tokenwise.read, 1))
        began = time.monotonic()
        record = pilot.pilot(_asked(tiny_folder, tiny_data), _request(out), watcher)
        watcher.seconds = time.monotonic() - began
    return out, record, watcher


def test_everything_is_there_in_the_end(piloted):
    out, record, _ = piloted
    assert json.loads((out / "pilot.json").read_text()) == record
    assert record["finished"]
    names = {path.name for path in out.iterdir()}
    assert {"compared", "export", "pilot.json", "probe.html", "report.html"} <= names
    assert {"settings.toml", "suspects.csv"} <= names
    assert record["exported"]
    assert record["export"][0]["verified"] is True
    assert record["export"] == json.loads((out / "export/export.json").read_text())
    assert record["size"]["arms"] == ["sft", "dft:floor=0.1"]
    assert (record["size"]["seeds"], record["size"]["steps"]) == (5, 4)
    page = (out / "report.html").read_text()
    assert page.startswith("<!")
    assert "dft:floor=0.1" in page


def test_the_time_that_it_took_is_that_of_the_whole_counted_once(piloted):
    _, record, watcher = piloted
    assert 0 < record["spent_seconds"] < record["seconds"] <= watcher.seconds
    assert record["seconds"] > 0.9 * watcher.seconds


def test_no_model_reads_a_test_row_before_the_size_is_settled(piloted):
    _, _, watcher = piloted
    settled = next(
        n for n, what in enumerate(watcher.done) if "2 arms, 5 seeds" in str(what)
    )
    before = [what for what in watcher.done[:settled] if isinstance(what, set)]
    after = [what for what in watcher.done[settled:] if isinstance(what, set)]
    assert {where.split(":")[0] for rows in before for where in rows} == {"train.jsonl"}
    assert any("test_shifted" in where for rows in after for where in rows)


def test_the_plan_is_on_disk_before_anything_is_trained(piloted):
    _, record, watcher = piloted
    assert watcher.plan["finished"] is None
    assert watcher.plan["size"] == record["size"]
    assert set(watcher.plan["pace"]["step"]) == {"sft", "dft:floor=0.1"}
    assert all(seconds > 0 for seconds in watcher.plan["pace"]["step"].values())
    assert watcher.plan["work"]["tests"] == 12


def test_a_finished_pilot_does_nothing_again(piloted, tiny_folder, tiny_data):
    out, record, _ = piloted
    listener = Listening()
    again = pilot.pilot(_asked(tiny_folder, tiny_data), _request(out), listener)
    assert again == record
    assert not [title for title in listener.done if title.startswith(("train ", "m"))]


def test_a_stopped_pilot_goes_on_to_the_same_end_and_keeps_its_plan(
    tmp_path, piloted, tiny_folder, tiny_data
):
    _, record, _ = piloted

    class Impatient(Listening):
        def task(self, title, total):
            if title.startswith("train ") and len(self.trained()) == 3:
                raise Interrupted("stopped")
            return super().task(title, total)

        def trained(self):
            return [title for title in self.done if title.startswith("train ")]

    out, asked = tmp_path / "out", _asked(tiny_folder, tiny_data)
    with pytest.raises(Interrupted):
        pilot.pilot(asked, _request(out), Impatient())
    held = json.loads((out / "pilot.json").read_text())
    assert held["finished"] is None
    assert not {"export", "report.html", "settings.toml"} & {
        path.name for path in out.iterdir()
    }
    listener = Listening()
    again = pilot.pilot(asked, _request(out), listener)
    assert "probe" not in listener.done
    assert not [title for title in listener.done if title.startswith("measure")]
    assert len([t for t in listener.done if t.startswith("train ")]) == 10 - 3
    assert again["pace"] == held["pace"]
    for key in ("verdict", "reason", "differences", "gained", "missing"):
        assert again[key] == record[key]


def test_a_pilot_that_is_asked_otherwise_is_refused(piloted, tiny_folder, tiny_data):
    out, _, _ = piloted
    for request, settings in (
        (_request(out, minutes=40.0), {}),
        (_request(out, arms=("sft", "dft")), {}),
        (_request(out), {"adapter__rank": 3}),
    ):
        with pytest.raises(RunError, match="asked otherwise"):
            pilot.pilot(_asked(tiny_folder, tiny_data, **settings), request, Silent())


def test_too_few_minutes_are_refused_with_those_that_would_do(
    tmp_path, tiny_folder, tiny_data
):
    asked, out = _asked(tiny_folder, tiny_data), tmp_path / "out"
    with pytest.raises(ConfigError, match="smallest pilot takes about") as problem:
        pilot.pilot(asked, _request(out, minutes=0.001), Silent())
    assert "2 arms, 1 seed, 4 steps, 12 test rows" in problem.value.message
    assert re.search(r"Pass --minutes [1-9]\d*,", problem.value.hint)
    assert not (out / "pilot.json").exists()
    assert not (out / "compared").exists()


def test_what_would_not_fit_is_given_up_in_the_stated_order(
    monkeypatch, tmp_path, tiny_folder, tiny_data
):
    def slow(stage, load_s, reporter):
        step = dict.fromkeys(stage.arms, 100.0)
        return pace.Pace(0.0, 0.0, step, 0.0, 0.0, 0.0)

    monkeypatch.setattr(pace, "measured", slow)
    listener = Listening()
    minutes = 1800 / sized.SHARE / 60  # 800 s for one seed, 2400 for three
    request = _request(tmp_path / "out", minutes=minutes)
    record = pilot.pilot(_asked(tiny_folder, tiny_data), request, listener)
    assert (record["size"]["seeds"], record["size"]["steps"]) == (1, 4)
    said = next(text for text in listener.done if text.startswith("Made to fit"))
    assert "1 seed instead of 5" in said
    assert "then one seed, then steps down to 20" in said
    longer = next(s for s in record["next"] if s["arguments"][0] == "pilot")
    assert "--minutes" in longer["arguments"]


def test_a_folder_with_something_else_is_left_alone(tmp_path, tiny_folder, tiny_data):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="no pilot"):
        pilot.pilot(_asked(tiny_folder, tiny_data), _request(tmp_path), Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("arms", "verdict", "winner"),
    [
        (("dft", "power:alpha=0.1"), "go", "power:alpha=0.1"),
        (("dft", "sft"), "no-go", "sft"),
    ],
)
def test_a_clear_winner_ends_with_go_and_a_clear_loser_with_no_go(
    tmp_path, tiny_folder, tiny_data, arms, verdict, winner
):
    asked = _asked(
        tiny_folder,
        tiny_data,
        evaluation__metrics=("nll",),
        training__steps=12,
    )
    out = tmp_path / "out"
    record = pilot.pilot(asked, _request(out, arms=arms), Silent())
    assert (record["verdict"], record["winner"]) == (verdict, winner)
    assert record["missing"] is None
    assert record["run"] == str(
        out / "compared/runs" / f"{winner.replace(':', '-')}-seed0"
    )
    for one in record["gained"]:
        assert one["baseline"] == "base"
        assert one["difference"] < 0  # of nats: training has taught it something
    objective = next(s for s in record["next"] if s["arguments"][0] == "train")
    assert winner in objective["arguments"]
    _parse(record)


def test_where_many_rows_look_mislabelled_the_robust_arm_is_given_up_last():
    def names(noisy, recommended="power:alpha=0.2"):
        return sized._arms((), {"recommended": recommended, "noisy": noisy})

    assert names(noisy=False) == ["sft", "power:alpha=0.2", "dft:floor=0.1"]
    assert names(noisy=True) == ["sft", "dft:floor=0.1", "power:alpha=0.2"]
    assert names(noisy=True, recommended="sft") == ["sft", "dft:floor=0.1"]


def test_side_effects_are_foreseen_for_as_many_prompts_as_are_bundled():
    files = (general.FILE, refusals.FILE)
    lines = [len(file.read_text(encoding="utf-8").splitlines()) for file in files]
    assert lines == [pace.GENERAL_ROWS, pace.SAFETY_ROWS]


def test_a_look_that_is_turned_off_takes_no_time(tmp_path, tiny_folder, tiny_data):
    def side(place, **more):
        asked = _asked(tiny_folder, tiny_data, **more)
        arms = compare.Request(("sft",), tmp_path / place)
        return pace.measured(compare.prepare(asked, arms, Silent()), 1.0, Silent()).side

    assert side("without", evaluation__side_effects="off") == 0
    assert side("with") > 0


def test_one_arm_alone_is_refused(tmp_path, tiny_folder, tiny_data):
    with pytest.raises(ConfigError, match="nothing to be held against"):
        pilot.pilot(
            _asked(tiny_folder, tiny_data),
            _request(tmp_path / "out", arms=("dft",)),
            Silent(),
        )


def _parse(record):
    """Let the command line read every command that is to be typed next."""
    for step in record["next"]:
        name, *arguments = step["arguments"]
        context = click.Context(group)
        command = group.get_command(context, name)
        while isinstance(command, click.Group):
            command = command.get_command(context, arguments.pop(0))
        command.make_context(name, list(arguments))


def test_the_next_commands_can_be_typed_as_they_stand(tmp_path, piloted, capfd):
    out, record, _ = piloted
    names = [step["arguments"][0] for step in record["next"]]
    assert names[:2] == ["generate", "pilot"]
    _parse(record)
    for step in record["next"]:
        if step["arguments"][0] in ("generate", "data"):
            group.main(list(step["arguments"]), standalone_mode=False)
    assert capfd.readouterr().out
    shutil.rmtree(out / "fixed", ignore_errors=True)


def _rows(path, count, answer=lambda n: f"{n % 3}"):
    lines = [
        json.dumps({"prompt": f"{path.stem} {n}", "completion": answer(n)})
        for n in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_one_file_is_cut_into_splits_and_that_is_said(tmp_path, tiny_folder):
    file, listener = _rows(tmp_path / "cases.jsonl", 60), Listening()
    out = tmp_path / "out"
    found = gathered.gather(_asked(tiny_folder, file), out, listener)
    made = find_splits(out / "data")
    assert set(made) == {"train", "valid", "test"}
    counts = [len(made[name][0].read_text().splitlines()) for name in made]
    assert sum(counts) == 60
    assert len(made["test"][0].read_text().splitlines()) >= 15
    assert found.resolved.config.data.source == str(out / "data")
    assert any("cut by the seed" in text for text in listener.done)
    before = {path: path.read_bytes() for path in (out / "data").iterdir()}
    gathered.gather(_asked(tiny_folder, file), out, Silent())  # goes on with them
    assert before == {path: path.read_bytes() for path in (out / "data").iterdir()}
    for other in (
        _asked(tiny_folder, file, seed=1),
        _asked(tiny_folder, _rows(file, 50)),
    ):
        with pytest.raises(RunError, match="not made of what is asked"):
            gathered.gather(other, out, Silent())


def test_a_file_that_cannot_be_cut_leaves_nothing(tmp_path, tiny_folder):
    file = _rows(tmp_path / "cases.jsonl", 1)
    with pytest.raises(DataError, match="would be empty"):
        gathered.gather(_asked(tiny_folder, file), tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_train_split_alone_is_cut_too(tmp_path, tiny_folder):
    folder = tmp_path / "mine"
    folder.mkdir()
    _rows(folder / "train.jsonl", 40)
    found = gathered.gather(_asked(tiny_folder, folder), tmp_path / "out", Silent())
    assert set(find_splits(tmp_path / "out/data")) == {"train", "valid", "test"}
    assert "cut by the seed" in found.said[0]


def test_a_folder_without_a_test_split_that_was_cut_already_names_the_command(
    tmp_path, tiny_folder
):
    folder = tmp_path / "mine"
    folder.mkdir()
    _rows(folder / "train.jsonl", 40)
    _rows(folder / "valid.jsonl", 5)
    with pytest.raises(DataError, match="no test split") as problem:
        gathered.gather(_asked(tiny_folder, folder), tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()
    command = problem.value.hint.split("mlx-rsft ")[1].replace(
        "DIR", str(tmp_path / "cut")
    )
    group.main(command.split(), standalone_mode=False)
    assert (tmp_path / "cut/test.jsonl").exists()


def test_test_rows_among_the_training_rows_end_it(tmp_path, tiny_folder):
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = _rows(folder / "train.jsonl", 20).read_text().splitlines()
    (folder / "test.jsonl").write_text(rows[3] + "\n" + rows[4] + "\n")
    with pytest.raises(CheckFailed, match="2 findings would spoil") as problem:
        pilot.pilot(_asked(tiny_folder, folder), _request(tmp_path / "out"), Silent())
    assert problem.value.exit_code == 3
    assert "leak" in problem.value.message
    assert not (tmp_path / "out").exists()


def test_answers_that_contradict_each_other_are_said_and_no_reason_to_stop(
    tmp_path, tiny_folder, tiny_data
):
    folder = tmp_path / "mine"
    shutil.copytree(tiny_data, folder)
    first = json.loads((folder / "train.jsonl").read_text().splitlines()[0])
    with (folder / "train.jsonl").open("a") as file:
        file.write(json.dumps({**first, "completion": "otherwise"}) + "\n")
    found = gathered.gather(_asked(tiny_folder, folder), tmp_path, Silent())
    assert found.found == {"contradiction": 1}
    assert "1 findings of kind contradiction" in found.said[0]


def test_the_demo_is_taken_only_where_neither_model_nor_data_are_named(
    tmp_path, tiny_folder, tiny_data
):
    for settings in (_asked(tiny_folder), _asked(data=tiny_data)):
        with pytest.raises(ConfigError, match="is not given"):
            gathered.gather(settings, tmp_path / "out", Silent())
    assert not (tmp_path / "out").exists()


def _found(**changes):
    one = {
        "split": "far",
        "metric": "exact_match",
        "arm": "dft",
        "baseline": "sft",
        "difference": 0.05,
        "low": -0.04,
        "high": 0.14,
        "p_value": 0.3,
        "p_adjusted": 0.6,
        "n": 100,
        "seeds": 3,
        "detectable": 0.1,
        "test": "bootstrap",
        "better": "higher",
        "unit": "fraction",
        "spread": 0.5,
        **changes,
    }
    return {
        "verdict": "undecided",
        "recommended": None,
        "baseline": "sft",
        "differences": [one],
        "splits": {"far": {"role": "shifted"}},
        "method": {"decides": "exact_match"},
    }


def test_an_open_verdict_says_how_many_rows_would_decide_it():
    gain = decided.missing(_found())
    assert (gain.towards, gain.needed) == ("go", 817)  # (2.8 * 0.51 / 0.05) ** 2
    assert gain.more == gain.needed - 100
    none = decided.missing(_found(difference=0.0, low=-0.1, high=0.1))
    assert (none.towards, none.split) == ("no-go", "far")
    assert none.needed == 5102  # (2.8 * 0.51 / 0.02) ** 2
    sure = decided.missing(_found(difference=0.3, low=-0.3, high=0.9))
    assert sure.more == 0  # rows are not what is missing


def test_a_closed_verdict_and_unknown_intervals_lack_nothing_that_could_be_counted():
    assert decided.missing({**_found(), "verdict": "go"}) is None
    assert decided.missing(_found(low=None, high=None)) is None
