import json

import numpy as np
import pytest

from mlx_rsft import config
from mlx_rsft.config import Layer
from mlx_rsft.errors import ConfigError
from mlx_rsft.workflows import train
from mlx_rsft.workflows.probe import USUAL, probe
from mlx_rsft.workflows.reporter import Silent


def _resolved(model, data, **more):
    given = {"model.source": str(model), "data.source": str(data), **more}
    return config.resolve([Layer(config.FLAG, given)])


@pytest.fixture(scope="module")
def many_rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    lines = [
        json.dumps(
            {
                "prompt": f"case {n % 7}",
                "completion": f"kind: {n % 7}",
                "tags": ["rare"] if n % 9 == 0 else [],
            }
        )
        for n in range(90)
    ]
    (folder / "train.jsonl").write_text("\n".join(lines))
    return folder


def test_the_recommendation_is_what_train_would_choose(
    tmp_path, tiny_folder, many_rows
):
    resolved = _resolved(tiny_folder, many_rows, **{"adapter.layers": "all"})
    job = train.prepare(resolved, tmp_path / "run", Silent())
    for rows in (1, 70, 500):
        found = probe(resolved, (), rows, Silent())
        assert found.chosen.choice == job.probe.choice
        assert found.chosen.overall.mean_p == pytest.approx(
            job.probe.overall.mean_p, rel=1e-5
        )
        assert found.chosen.by_tag.keys() == {"rare"}
        assert 64 < len(found.looked.rows) <= max(64 + 10, rows)


def test_the_record_adds_up(tiny_folder, many_rows):
    record = probe(_resolved(tiny_folder, many_rows), (), 500, Silent()).as_record()
    contract = {"rows", "tokens", "mean_p", "nll", "histogram", "objectives"}
    assert contract | {"suspects", "recommendation"} <= set(record)
    assert {"objective", "reason"} <= set(record["recommendation"])
    histogram = record["histogram"]
    assert sum(histogram["all"]) == record["tokens"]
    parts = np.sum([histogram[name] for name in ("content", "template", "end")], axis=0)
    assert parts.tolist() == histogram["all"]
    assert record["classes"]["end"]["tokens"] == record["rows"] == 90
    assert record["classes"]["content"]["tokens"] == 90  # the digit; "kind: " is form
    weighted = sum(c["tokens"] * c["mean_p"] for c in record["classes"].values())
    assert weighted == pytest.approx(record["tokens"] * record["mean_p"])
    assert [entry["objective"] for entry in record["objectives"]][:4] == list(USUAL)
    for entry in record["objectives"]:
        assert sum(entry["gradient"]) == pytest.approx(1)
        assert sum(entry["gradient_by_class"].values()) == pytest.approx(1)


def test_named_objectives_are_compared_with_plain_sft(tiny_folder, many_rows):
    settings = _resolved(tiny_folder, many_rows)
    found = probe(settings, ("eaft", "gem", "dft:keep=end"), 1, Silent())
    entries = {e["objective"]: e for e in found.as_record()["objectives"]}
    assert {"sft", "eaft", "gem", "dft:keep=end"} <= set(entries)
    assert "dft" not in entries
    assert entries["gem"]["pull_left_out"]
    assert not entries["eaft"]["pull_left_out"]
    end = found.looked.kinds == 2
    np.testing.assert_allclose(found.effects["dft:keep=end"].weight[end], 1)


def test_an_objective_for_rows_that_are_not_there_is_refused(tiny_folder, many_rows):
    with pytest.raises(ConfigError, match="No training row has the tag 'odd'"):
        probe(_resolved(tiny_folder, many_rows), ("dft:where=odd",), 1, Silent())


def test_an_objective_is_checked_before_the_model_is_loaded(tmp_path):
    with pytest.raises(ConfigError, match="no objective 'dtf'"):
        probe(_resolved(tmp_path / "none", tmp_path), ("dtf",), 1, Silent())


def test_shown_rows_carry_a_weight_for_each_trained_token(tiny_folder, many_rows):
    found = probe(_resolved(tiny_folder, many_rows), ("dft",), 500, Silent())
    assert found.telling == "dft" or np.ptp(found.effects[found.telling].weight) > 0
    for row in found.shown():
        trained = sum(end - start for start, end in row.spans)
        assert len(row.p) == len(row.weight) == len(row.kinds) == trained
        assert len(row.texts) >= trained
