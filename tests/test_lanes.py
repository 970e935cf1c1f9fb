import mlx.core as mx
import numpy as np
import pytest

from mlx_rsft import blas, lanes

WIDTH, REPEATS = 384, 40


def _chain(start, repeats=REPEATS):
    """Products with something in between, as models have them."""
    state = mx.full((256, WIDTH), start)
    weight = mx.eye(WIDTH)
    yield [state, weight]
    for _ in range(repeats):
        state = mx.tanh(state @ weight)
    yield [state]
    return state


def test_jobs_return_what_they_return_alone_whatever_their_length():
    def job(count):
        total = mx.zeros(())
        for number in range(count):
            total = total + number
            yield [total]
        return count, total.item()

    assert lanes.together([job(3)]) == [(3, 3.0)]
    assert lanes.together([job(5), job(0), job(2)]) == [(5, 10.0), (0, 0.0), (2, 1.0)]


def test_a_job_has_its_arrays_computed_when_it_goes_on():
    def job(number):
        array = mx.arange(6) * number
        yield [array]
        return np.array(array).sum()

    assert lanes.together([job(n) for n in range(4)]) == [0, 15, 30, 45]


def test_what_jobs_ask_for_is_computed_in_turn(monkeypatch):
    asked, compute = [], mx.eval
    monkeypatch.setattr(
        mx, "eval", lambda arrays: (asked.append(arrays), compute(arrays))
    )

    def job(*numbers):
        yield [mx.array(number) for number in numbers]

    lanes.together([job(1, 2, 3), job(10), job(100, 200)])
    assert [array.item() for array in asked[0]] == [1, 10, 100, 2, 200, 3]


def test_every_job_has_a_stream_of_its_own_and_the_first_the_usual_one():
    def job():
        yield [mx.zeros(1)]
        return mx.default_stream(mx.default_device())

    usual = mx.default_stream(mx.default_device())
    first, second, third = lanes.together([job(), job(), job()])
    assert first == usual
    assert second != usual
    assert third not in (usual, second)
    assert lanes.together([job(), job(), job()]) == [first, second, third]
    assert mx.default_stream(mx.default_device()) == usual


def test_products_share_the_cores_while_jobs_run_and_have_them_back_after():
    before = blas.threads()
    if before == 1:
        pytest.skip("products use one core anyway")

    def job():
        yield [mx.zeros(1)]
        return blas.threads()

    assert lanes.count() == before
    assert lanes.together([job()] * 1) == [before]
    assert set(lanes.together([job(), job()])) == {max(1, before // 2)}
    assert lanes.together([job()], cores=before) == [1]
    assert blas.threads() == before


def test_what_a_job_raises_is_raised_and_the_cores_are_given_back():
    before = blas.threads()

    def failing():
        yield [mx.zeros(1)]
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        lanes.together([failing(), _chain(0.5)])
    assert blas.threads() == before
    assert mx.allclose(*lanes.together([_chain(0.5), _chain(0.5)])).item()
