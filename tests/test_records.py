import json

from mlx_rsft import records
from mlx_rsft.records import StepRecord


def _step(**changes):
    values = {
        "step": 1,
        "loss": 0.5,
        "nll": 2.0,
        "mean_p": 0.2,
        "ess": 0.9,
        "weight": 6.5,
        "tokens": 7,
        "learning_rate": 1e-4,
        "grad_norm": 1.0,
        "tokens_per_s": 10.0,
        "peak_bytes": 100,
    }
    return StepRecord(**{**values, **changes})


def test_every_line_is_standard_json_even_when_the_loss_is_not_a_number(tmp_path):
    path = tmp_path / "steps.jsonl"
    records.append(path, _step().as_record())
    records.append(path, _step(loss=float("nan"), skipped=True).as_record())
    first, second = [json.loads(line) for line in path.read_text().splitlines()]
    assert list(first) == [
        "step",
        "loss",
        "nll",
        "mean_p",
        "ess",
        "weight",
        "tokens",
        "learning_rate",
        "grad_norm",
        "tokens_per_s",
        "peak_bytes",
    ]
    assert second["loss"] is None
    assert second["skipped"] is True
    assert list(records.read_lines(path)) == [first, second]
