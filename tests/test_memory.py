from dataclasses import replace

import pytest

from mlx_rsft import memory
from mlx_rsft.memory import GIB, Portion, Sizes, items

SIZES = Sizes(
    weights=1000,
    adapter=20,
    trained=20,
    largest=8,
    moments=40,
    token_logits=100,
    chunk_rows=4,
)


def test_items_sum_to_what_is_held_when_the_loss_is_computed():
    held = items(SIZES, Portion(scores=30, activations=70, supervised=2))
    assert held.loss == memory.CHUNK_COPIES * 2 * 100
    assert held.total == sum(held.as_record().values())
    assert held.total == 1000 + 20 + 40 + 30 + 70 + held.loss


def test_logits_beyond_a_chunk_take_no_more_memory():
    losses = [items(SIZES, Portion(0, 70, rows)).loss for rows in (2, 4, 6, 99)]
    assert losses[0] < losses[1] == losses[2] == losses[3]


def test_a_trained_head_holds_its_gradient_beside_that_of_a_chunk():
    frozen, trained = (
        items(sizes, Portion(0, 70, 4)).loss
        for sizes in (SIZES, replace(SIZES, head=500))
    )
    copies = memory.TRAINED_HEAD_COPIES - memory.CHUNK_COPIES
    assert trained - frozen == copies * 4 * 100 + 2 * 500


def test_a_block_that_is_computed_again_is_held_beside_what_is_kept():
    held = items(SIZES, Portion(30, 5000, 2, again=2000))
    assert held.loss == 0
    assert held.activations == 7000


def test_a_step_of_many_micro_batches_holds_the_sum_of_their_gradients_as_well():
    one, two, five = (
        items(SIZES, Portion(0, 70, 2, before=before)) for before in (0, 1, 5)
    )
    assert (one.gradients, two.gradients, five.gradients) == (0, 20, 20)


def test_where_little_is_kept_the_update_holds_the_most():
    held = items(SIZES, Portion(0, 1, 0))
    assert held.activations == held.loss == 0
    assert held.gradients == 2 * SIZES.trained
    assert held.update == memory.UPDATE_COPIES * SIZES.largest


def test_a_measured_peak_moves_what_is_above_the_state_and_nothing_else():
    held = items(SIZES, Portion(scores=30, activations=70, supervised=2))
    moved = held.corrected(3000)
    assert moved.total == pytest.approx(3000, abs=4)
    assert moved.state == held.state
    assert moved.activations > held.activations


@pytest.mark.parametrize(("gib", "least", "most"), [(16, 10, 11), (64, 47, 49)])
def test_a_mac_may_hold_two_thirds_or_three_quarters(gib, least, most):
    assert least * GIB < memory.may_hold(gib) < most * GIB
