import json

import pytest

from mlx_rsft import evaluation
from mlx_rsft.config import FLAG, Layer, resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.workflows.evaluate import evaluate
from mlx_rsft.workflows.reporter import Silent


@pytest.fixture
def asked(tiny_folder, tmp_path, monkeypatch):
    """Settings on a data folder with tags, choices and numbers."""
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "cache"))
    rows = [
        {
            "prompt": f"q{n}",
            "completion": str(n),
            "choices": [str(n), str(n + 1)],
            "tags": ["odd" if n % 2 else "even"],
        }
        for n in range(6)
    ]
    data = tmp_path / "test.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)) + "\n")

    def settings(**values):
        given = {"model.source": str(tiny_folder), "data.source": str(data)}
        given |= {f"evaluation.{key}": value for key, value in values.items()}
        return resolve([Layer(FLAG, {"evaluation.max_tokens": 4} | given)])

    return settings


ALL = (
    "nll,entropy,contains,numeric:tolerance=1e9,regex:pattern=.*,format_valid,"
    "length_ratio,end_of_turn,avg_at_n,pass_at_k:k=2,distinct_answers,"
    "distinct_ngrams:n=1,choices,drift_kl,drift_k3,drift_nll"
)


def test_the_whole_table_is_measured_per_split_and_tag(asked, tiny_adapter):
    settings = asked(metrics=ALL, samples=2, temperature=1.0)
    record = evaluate(settings, tiny_adapter, Silent())
    found = record["splits"]["test"]
    assert list(found["metrics"]) == list(evaluation.choose([ALL]))
    assert list(found["tags"]) == ["even", "odd"]
    for part in found["tags"].values():
        assert part["rows"] == 3
        assert {metric["n"] for metric in part["metrics"].values()} == {3}
        assert set(part["metrics"]) == set(found["metrics"])
    assert found["metrics"]["drift_kl"]["value"] > 0
    assert evaluate(settings, tiny_adapter, Silent()) == record  # seeds are fixed


def test_general_questions_are_a_split_with_the_metrics_that_fit(asked, tiny_adapter):
    settings = asked(metrics="nll,contains,drift_nll", general=True)
    record = evaluate(settings, tiny_adapter, Silent())
    assert list(record["splits"]) == ["test", "general"]
    general = record["splits"]["general"]
    assert list(general["metrics"]) == ["nll", "drift_nll", "choices"]
    bare = evaluate(asked(metrics="nll", general=True), None, Silent())
    before = bare["splits"]["general"]["metrics"]["nll"]["value"]
    after = general["metrics"]["nll"]["value"]
    rise = general["metrics"]["drift_nll"]["value"]
    assert rise == pytest.approx(after - before, abs=1e-4)


def test_settings_that_would_do_nothing_are_refused(asked):
    for key in ("samples", "temperature"):
        with pytest.raises(ConfigError, match="No chosen metric looks at samples"):
            evaluate(asked(metrics="nll", **{key: 2}), None, Silent())


def test_drift_without_an_adapter_is_refused(asked):
    with pytest.raises(ConfigError, match="Pass --adapter"):
        evaluate(asked(metrics="drift_kl"), None, Silent())
