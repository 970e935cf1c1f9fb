"""Settings of short runs of the tiny model, and a reporter that remembers."""

from mlx_rsft import config, records
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.rundir import RunDir
from mlx_rsft.workflows.reporter import Silent


class Listening(Silent):
    """Keeps notes, and with them the titles of what was done, in order."""

    def __init__(self):
        self.notes, self.done = [], []

    def note(self, text):
        self.notes.append(text)
        self.done.append(text)

    def task(self, title, total):
        self.done.append(title)
        return super().task(title, total)


def short_settings(model, data, **changes):
    """Settings of a few steps; ``training__steps`` stands for ``training.steps``."""
    return {
        "model.source": str(model),
        "data.source": str(data),
        "adapter.layers": "last:1",
        "adapter.rank": 2,
        "training.steps": 4,
        "training.batch_size": 4,
        "optimizer.learning_rate": 0.02,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }


def short_run(model, data, **changes):
    """The same, as if given by flags."""
    return config.resolve([Layer(FLAG, short_settings(model, data, **changes))])


def outcome(folder):
    """What a run leaves, but for times: adapter, steps and looks."""
    run = RunDir(folder)
    steps = list(records.read_lines(run.steps))
    for step in steps:
        for name in records.OF_THE_HOUR:
            step.pop(name, None)
    adapter = (run.adapter / "adapters.safetensors").read_bytes()
    return adapter, steps, run.evals.read_text()
