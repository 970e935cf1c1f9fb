import json

from mlx_rsft import config
from mlx_rsft.config import FLAG, Layer
from mlx_rsft.workflows import audit, effects, story, train
from mlx_rsft.workflows.reporter import Silent

from .conftest import short_settings


def _run(given, folder):
    more = {"evaluation.side_effects": "on", "evaluation.max_tokens": 4}
    given = {**given, "objective.name": "sft", **more}
    settings = config.resolve([Layer(FLAG, given)])
    train.train(train.prepare(settings, folder, Silent()), folder, Silent())
    return json.loads((folder / "manifest.json").read_text())["effects"]


def test_a_run_that_is_asked_to_notes_what_changed_beside_its_task(
    tmp_path, tiny_folder, tiny_data
):
    folder = tmp_path / "run"
    found = _run(short_settings(tiny_folder, tiny_data), folder)
    by = {(one["set"], one["metric"]): one for one in found}
    assert set(by) == {
        *(("task", metric) for metric in effects.ON_TASK),
        *(("general", metric) for metric in effects.IN_GENERAL),
        *(("harmful", "refusal"), ("harmless", "refusal")),
    }
    assert by["task", "drift_kl"]["value"] > 0
    assert by["general", "drift_nll"]["base"] is None
    entropy = by["general", "entropy"]
    assert entropy["base"] != entropy["value"]
    assert entropy["low"] <= entropy["value"] <= entropy["high"]
    assert by["harmful", "refusal"]["n"] + by["harmless", "refusal"]["n"] == 30
    assert not audit.verify(folder).findings
    assert "the bare model" in "\n".join(story.told(story.read(folder)))


def test_full_fine_tuning_has_no_bare_model_to_be_held_against(
    tmp_path, tiny_folder, tiny_data
):
    given = {**short_settings(tiny_folder, tiny_data), "adapter.method": "full"}
    del given["adapter.rank"]
    found = _run(given, tmp_path / "run")
    assert not [one for one in found if one["metric"].startswith("drift")]
    assert {one["base"] for one in found} == {None}
