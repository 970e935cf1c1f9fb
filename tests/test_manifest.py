import json

import pytest

from mlx_rsft import manifest
from mlx_rsft.manifest import Manifest


def _card():
    return Manifest(
        command=["mlx-rsft", "train"],
        versions=manifest.versions(),
        device={"backend": "cpu"},
        model={"source": "m"},
        data={"source": "d"},
        objective={"name": "sft"},
        config_sha256=manifest.text_sha256("x"),
        seed=0,
        started=manifest.now(),
    )


def test_a_run_that_was_cut_off_has_no_end(tmp_path):
    path = tmp_path / "manifest.json"
    _card().write(path)
    assert json.loads(path.read_text())["finished"] is None
    _card().ended({"steps": 3}, interrupted=True).write(path)
    cut = json.loads(path.read_text())
    assert cut["finished"] is None
    assert cut["interrupted"] is True
    _card().ended({"steps": 3}, interrupted=False).write(path)
    assert json.loads(path.read_text())["finished"]


def test_a_record_with_a_changed_letter_is_not_taken_for_the_one_that_was_sealed(
    tmp_path,
):
    path = tmp_path / "manifest.json"
    _card().write(path)
    whole = path.read_text()
    assert manifest.unsealed(whole)["seed"] == 0
    for changed in (whole.replace('"seed": 0', '"seed": 1'), whole[:-9], "[]", ""):
        with pytest.raises(ValueError):  # noqa: PT011 - json has its own words
            manifest.unsealed(changed)


def test_the_versions_that_decide_a_result_are_recorded():
    assert {"mlx-rsft", "mlx", "mlx-lm"} <= set(manifest.versions())
