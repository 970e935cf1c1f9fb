import itertools

from hypothesis import given
from hypothesis import strategies as st

from mlx_rsft.report import drawing

NUMBERS = st.floats(-1e100, 1e100)


@given(st.tuples(NUMBERS, NUMBERS).map(sorted))
def test_ticks_are_few_and_hold_the_range_between_them(ends):
    low, high = ends
    found = drawing.ticks(low, high, 5)
    slack = 1e-6 * max(abs(low), abs(high), 1.0)
    assert 2 <= len(found) <= 8
    assert found == sorted(found)
    assert found[0] <= low + slack
    assert found[-1] >= high - slack


def test_ticks_are_round():
    assert drawing.ticks(0.0, 0.97, 4) == [0.0, 0.5, 1.0]
    assert drawing.ticks(-12.0, 31.0, 5) == [-20, -10, 0, 10, 20, 30, 40]


def test_a_scale_keeps_order_and_holds_what_is_beyond_at_its_ends():
    place = drawing.scale(0.0, 2.0, 10.0, 50.0)
    assert [place(v) for v in (-1, 0, 1, 2, 9)] == [10, 10, 30, 50, 50]
    assert drawing.scale(1.0, 1.0, 0.0, 9.0)(1.0) == 0.0


@given(st.text(alphabet="abc軸受W ", max_size=60), st.floats(40, 400))
def test_a_fitted_text_is_no_wider_than_its_room(text, room):
    shown = drawing.fitted(text, room)
    assert drawing.width_of(shown) <= room
    assert shown == text or "…" in shown


def test_series_differ_in_more_than_their_colour():
    looks = [
        (drawing.dash(n), drawing.MARKERS[n % len(drawing.MARKERS)]) for n in range(24)
    ]
    for one, other in itertools.combinations(range(24), 2):
        assert looks[one] != looks[other], (one, other)
    for one, other in itertools.combinations(range(len(drawing.MARKERS)), 2):
        assert looks[one][0] != looks[other][0]
        assert looks[one][1] != looks[other][1]


def test_every_marker_is_a_shape_of_its_own_and_is_in_the_legend():
    drawn = {drawing.marker(n, 18, 8) for n in range(len(drawing.MARKERS))}
    assert len(drawn) == len(drawing.MARKERS)
    for number in range(len(drawing.MARKERS)):
        assert drawing.marker(number, 18, 8) in drawing.sample(number)
