import pytest

from mlx_rsft.config import FLAG, Layer, resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.workflows import train
from mlx_rsft.workflows.reporter import Silent


def test_a_metric_that_is_none_stops_a_run_before_its_model_is_looked_for(tmp_path):
    given = {
        "model.source": str(tmp_path / "nowhere"),
        "data.source": str(tmp_path / "nowhere"),
        "evaluation.metrics": "perplexty",
    }
    with pytest.raises(ConfigError, match="no metric 'perplexty'"):
        train.prepare(resolve([Layer(FLAG, given)]), tmp_path / "run", Silent())
