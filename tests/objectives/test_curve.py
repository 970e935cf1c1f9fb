import pytest

from mlx_rsft.objectives import OBJECTIVES, build
from mlx_rsft.objectives.curve import curve


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_can_be_drawn(name):
    given = {"power": ":alpha=0.5", "blend": ":a=0.5", "floor": ":f=0.1"}
    points = curve(build({"name": name + given.get(name, "")}))
    assert len(points) == 20
    assert all(point.weight >= 0 for point in points)


def test_the_push_of_dft_peaks_at_one_half_and_of_chord_phi_at_one_third():
    def peak(name):
        return max(curve(build({"name": name}), 300), key=lambda point: point.push).p

    assert peak("dft") == pytest.approx(1 / 2, abs=0.005)
    assert peak("chord-phi") == pytest.approx(1 / 3, abs=0.005)
    assert peak("power:alpha=0.5") == pytest.approx(1 / 3, abs=0.005)
    assert peak("infosft") == pytest.approx(0.345, abs=0.005)
