import tomllib

import pytest

from mlx_rsft import config as configuration
from mlx_rsft.config import Layer
from mlx_rsft.errors import CheckFailed, ConfigError
from mlx_rsft.objectives import build
from mlx_rsft.workflows import fitting, sizing
from mlx_rsft.workflows.plan import plan
from mlx_rsft.workflows.portions import RowSize
from mlx_rsft.workflows.reporter import Silent
from mlx_rsft.workflows.sizing import Where


@pytest.fixture
def asked(tiny_folder):
    def resolve(**more):
        values = {"model.source": str(tiny_folder), "adapter.layers": "all"}
        values |= {name.replace("__", "."): value for name, value in more.items()}
        return configuration.resolve([Layer(configuration.FLAG, values)])

    return resolve


def _sized(resolved, rows, available=1 << 40, **where):
    here = Where("here", available, 1 << 40, stock=False, **where)
    return sizing.estimate(resolved.config, rows, build({"name": "sft"}), here)


ROWS = [RowSize(128, 32)] * 16


def test_items_sum_to_the_peak_and_are_compared_with_what_there_is(asked, tiny_data):
    record = plan(asked(data__source=str(tiny_data)), Silent()).as_record()
    assert sum(record["items"].values()) == record["peak_bytes"]
    assert record["fits"]
    assert record["rows"] == 20
    assert record["steps_per_epoch"] == 2
    assert record["seconds_per_step"] is None
    assert record["advice"] == []
    assert not record["rows_assumed"]


def test_a_real_step_gives_times_and_holds_what_was_estimated(asked, tiny_data):
    found = plan(asked(data__source=str(tiny_data)), Silent(), measure=True)
    record = found.as_record()
    assert record["measured"]
    assert record["seconds_per_epoch"] == pytest.approx(2 * record["seconds_per_step"])
    assert record["peak_bytes"] == pytest.approx(found.items.total)
    assert sum(record["items"].values()) == record["peak_bytes"]


def test_without_data_rows_of_the_longest_length_are_assumed(asked):
    record = plan(asked(data__max_length=256), Silent()).as_record()
    assert record["rows_assumed"]
    assert record["largest_batch"]["tokens"] == 256


def test_a_smaller_budget_more_blocks_and_full_training_hold_what_one_expects(asked):
    usual = _sized(asked(), ROWS).items
    small = _sized(asked(training__token_budget=128), ROWS).items
    few = _sized(asked(adapter__layers="last:1"), ROWS).items
    full = _sized(asked(adapter__method="full"), ROWS).items
    assert small.activations < usual.activations / 2
    assert few.activations < usual.activations / 2
    assert full.adapter == 0
    assert full.optimizer == pytest.approx(2 * full.weights, rel=0.01)


def test_the_optimizer_is_counted_as_it_is(asked):
    sizes = {
        name: _sized(asked(optimizer__name=name), ROWS).items.optimizer
        for name in ("adamw", "adafactor", "lion", "sgd")
    }
    assert sizes["adamw"] == pytest.approx(2 * sizes["lion"], rel=0.01)
    assert 0 < sizes["adafactor"] < sizes["lion"]
    assert sizes["sgd"] == sizes["lion"]  # mlx's holds a momentum that is not used


def test_frozen_states_count_only_where_they_are_kept_in_memory(asked):
    held = {
        mode: _sized(
            asked(adapter__layers="last:1", training__trunk_cache=mode), ROWS
        ).items.trunk
        for mode in ("memory", "disk", "off")
    }
    assert held["memory"] == 16 * 128 * 24 * 4
    assert held["disk"] == held["off"] == 0


def _climb(resolved, rows, available):
    first = _sized(resolved, rows)
    longest = max(row.tokens for row in rows)

    def sized(config):
        here = Where("here", available, 1 << 40, stock=False)
        return sizing.estimate(config, rows, build({"name": "sft"}), here)

    return first, *fitting.climb(resolved, first, longest, available, sized)


def test_what_does_least_harm_comes_first_and_no_further_than_needed(asked):
    resolved = asked(training__token_budget=2048)
    held = _sized(resolved, ROWS).items.total
    available = int(0.6 * held)
    first, advice, settled = _climb(resolved, ROWS, available)
    assert [list(step.changes) for step in advice] == [["training.token_budget"]]
    assert not advice[0].changes_results
    assert advice[0].fits
    twice = asked(training__token_budget=2 * settled.config.training.token_budget)
    assert _sized(twice, ROWS).items.total > available
    assert advice[0].saves_bytes == first.items.total - advice[0].peak_bytes


def test_every_rung_is_taken_where_nothing_is_enough(asked):
    _, advice, _ = _climb(asked(training__token_budget=2048), ROWS, 1)
    order = [name for step in advice for name in step.changes]
    assert order[0] == "training.token_budget"
    assert order[1] == "training.grad_checkpoint"
    assert order.index("training.grad_checkpoint") < order.index("data.max_length")
    assert not any(step.fits for step in advice)
    peaks = [step.peak_bytes for step in advice]
    assert peaks == sorted(peaks, reverse=True)
    assert all(step.saves_bytes > 0 for step in advice)


def test_settings_that_fit_are_written_and_fit_when_read_again(asked, tmp_path):
    resolved = asked(training__token_budget=4096, data__max_length=1024)
    available = _half_of_what_it_holds(resolved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlx_rsft.workflows.plan._where", lambda _: available)
        found = plan(resolved, Silent())
        assert not found.fits
        found.write_fit(tmp_path / "fits.toml")
        layer = configuration.from_file(tmp_path / "fits.toml")
        again = plan(configuration.resolve([layer]), Silent())
    assert again.fits
    assert again.items.total == found.advice[-1].peak_bytes


def _half_of_what_it_holds(resolved):
    held = plan(resolved, Silent()).items.total
    return Where("here", held // 2, 1 << 40, stock=False)


def test_nothing_is_written_where_nothing_fits(asked, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        nowhere = Where("here", 1000, 1000, stock=False)
        patch.setattr("mlx_rsft.workflows.plan._where", lambda _: nowhere)
        found = plan(asked(data__max_length=64), Silent())
    with pytest.raises(CheckFailed, match="Nothing makes this fit"):
        found.write_fit(tmp_path / "fits.toml")
    assert list(tmp_path.iterdir()) == []


def test_another_machine_is_not_measured_here(asked):
    with pytest.raises(ConfigError, match="another machine"):
        plan(asked(), Silent(), memory_gib=16, measure=True)


def test_a_mac_is_planned_as_a_mac_computes(asked):
    rows_of_512 = asked(data__max_length=512)
    here = plan(rows_of_512, Silent())
    mac = plan(rows_of_512, Silent(), memory_gib=8)
    assert mac.as_record()["machine"] == "an 8 GB Mac"
    assert mac.items.attention > here.items.attention
    assert mac.estimate.shape.rows == 4  # of 512 tokens, in a budget of 2,048


def test_settings_that_were_chosen_are_kept_apart_from_defaults(asked):
    resolved = configuration.changed(asked(), {"adapter.rank": 4}, "plan")
    written = tomllib.loads(configuration.given_as_toml(resolved))
    assert written["adapter"] == {"layers": "all", "rank": 4}
    assert set(written) == {"adapter", "model"}
    with pytest.raises(ConfigError, match="must be at least 1"):
        configuration.changed(resolved, {"adapter.rank": 0}, "plan")


def test_auto_computes_as_few_blocks_again_as_fit(asked):
    config = asked(training__grad_checkpoint="auto")
    roomy, tight = _sized(config, ROWS), _sized(config, ROWS, 1)
    assert len(roomy.recomputed) == 0
    assert len(tight.recomputed) == tight.num_blocks
    one = _sized(asked(training__grad_checkpoint="1"), ROWS)
    assert tight.items.total < one.items.total < roomy.items.total
    assert len(_sized(config, ROWS, one.items.total).recomputed) == 1
    assert len(_sized(config, ROWS, one.items.total - 1).recomputed) == 2


@pytest.mark.parametrize("wrong", ["some", "-1", "4", "1.5"])
def test_a_number_of_blocks_that_cannot_be_is_refused(asked, wrong):
    with pytest.raises(ConfigError, match="trained blocks"):
        _sized(asked(training__grad_checkpoint=wrong), ROWS)
