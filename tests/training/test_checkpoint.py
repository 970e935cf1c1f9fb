import pytest

from mlx_rsft import testing
from mlx_rsft.errors import RunError
from mlx_rsft.models import adapters
from mlx_rsft.models.split import SplitModel
from mlx_rsft.objectives import build
from mlx_rsft.settings import AdapterSettings, OptimizerSettings
from mlx_rsft.training import checkpoint
from mlx_rsft.training import optimizer as optimizers
from mlx_rsft.training.checkpoint import FACTS, STATE, Facts
from mlx_rsft.training.references import References
from mlx_rsft.training.step import Stepper


def _stepper(rank=2):
    model = testing.tiny_model()
    adapters.attach(model, AdapterSettings(rank=rank, layers="last:1"))
    split, objective = SplitModel(model), build({"name": "sft"})
    optimizer = optimizers.make(OptimizerSettings())
    optimizer.init(model.trainable_parameters())
    references = References(split, objective)
    return Stepper(split, objective, optimizer, references, 2048, clip_norm=1.0)


def _facts(step):
    return Facts(step, "a run", evals=2, spent={"seconds": 1.5})


def _written(folder, step=4):
    checkpoint.write(folder, _stepper(), _facts(step))
    return checkpoint.path(folder, step)


def test_what_is_read_is_what_was_written(tmp_path):
    assert checkpoint.read(_written(tmp_path)) == _facts(4)


@pytest.mark.parametrize("name", [STATE, FACTS])
def test_a_checkpoint_with_a_flipped_bit_or_a_lost_end_is_refused_by_name(
    name, tmp_path
):
    place = _written(tmp_path)
    whole = (place / name).read_bytes()
    for at in range(0, len(whole) - 2, len(whole) // 20):
        flipped = bytearray(whole)
        flipped[at] ^= 4
        for damaged in (bytes(flipped), whole[:at]):
            (place / name).write_bytes(damaged)
            with pytest.raises(RunError, match="checkpoint is damaged"):
                checkpoint.read(place)
    (place / name).unlink()
    with pytest.raises(RunError, match="checkpoint is damaged"):
        checkpoint.read(place)


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path):
    place = _written(tmp_path).replace(checkpoint.path(tmp_path, 5))
    with pytest.raises(RunError, match="it is one of step 4"):
        checkpoint.read(place)


def test_the_state_of_other_parameters_is_refused(tmp_path):
    with pytest.raises(RunError, match="other parameters"):
        checkpoint.restore(_written(tmp_path), _stepper(rank=3))


def test_a_write_that_fails_leaves_the_checkpoints_before_it(tmp_path, monkeypatch):
    place = _written(tmp_path)

    def full(_path):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint.files, "sync", full)
    with pytest.raises(RunError, match="step 5 cannot be written"):
        _written(tmp_path, 5)
    assert list(tmp_path.iterdir()) == [place]
    assert checkpoint.read(place).step == 4


def test_the_newest_are_kept_and_half_written_ones_are_swept_away(tmp_path):
    for step in (8, 9, 10, 1_000_000):
        _written(tmp_path, step)
    (tmp_path / ".step-000010.x1").mkdir()
    checkpoint.tidy(tmp_path, {10, 1_000_000})
    kept = [checkpoint.path(tmp_path, step) for step in (10, 1_000_000)]
    assert checkpoint.found(tmp_path) == kept
    assert sorted(tmp_path.iterdir()) == sorted(kept)
