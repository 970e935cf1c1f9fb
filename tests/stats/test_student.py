import pytest
from scipy.stats import t

from mlx_rsft.stats import student


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 60])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.975, 0.995])
def test_it_is_the_quantile_of_the_reference(share, freedom):
    wanted = t.ppf(share, freedom)
    assert student(share, freedom) == pytest.approx(wanted, rel=1e-4, abs=1e-9)
    assert student(1 - share, freedom) == pytest.approx(-wanted, rel=1e-4, abs=1e-9)
