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


def _read(card):
    return json.loads(card.text())


def test_a_run_that_was_cut_off_has_no_end():
    assert _read(_card())["finished"] is None
    cut = _read(_card().ended({"steps": 3}, interrupted=True))
    assert cut["finished"] is None
    assert cut["interrupted"] is True
    assert _read(_card().ended({"steps": 3}, interrupted=False))["finished"]


def test_a_record_with_a_changed_letter_is_not_taken_for_the_one_that_was_sealed(
    tmp_path,
):
    path = tmp_path / "manifest.json"
    path.write_text(_card().text())
    whole = path.read_text()
    assert manifest.unsealed(whole)["seed"] == 0
    for changed in (whole.replace('"seed": 0', '"seed": 1'), whole[:-9], "[]", ""):
        with pytest.raises(ValueError):  # noqa: PT011 - json has its own words
            manifest.unsealed(changed)


def test_the_versions_that_decide_a_result_are_recorded():
    assert {"mlx-rsft", "mlx", "mlx-lm"} <= set(manifest.versions())
