import tomllib

import pytest

from mlx_rsft import config
from mlx_rsft.config import Layer, resolve
from mlx_rsft.errors import ConfigError
from mlx_rsft.settings import Config


def test_a_flag_outranks_set_outranks_a_file_outranks_the_default(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("seed = 1\n[adapter]\nrank = 2\nscale = 2.0\n")
    layers = [
        config.from_file(path),
        config.from_assignments(["adapter.rank=3", "optimizer.warmup=0.2"]),
        Layer(config.FLAG, {"adapter.rank": 4}),
    ]
    resolved = resolve(layers)
    assert resolved.config.seed == 1
    assert resolved.config.adapter.rank == 4
    assert resolved.config.adapter.scale == 2.0
    assert resolved.config.optimizer.warmup == 0.2
    assert resolved.origins["adapter.rank"] == "flag"
    assert resolved.origins["optimizer.warmup"] == "--set"
    assert resolved.origins["seed"] == str(path)
    assert not resolved.is_given("adapter.dropout")


def test_a_profile_outranks_the_default_and_nothing_else(tmp_path):
    profile, file = tmp_path / "profile.toml", tmp_path / "a.toml"
    profile.write_text('[objective]\nname = "dft"\nfloor = 0.1\n[adapter]\nrank = 2\n')
    file.write_text("[adapter]\nrank = 3\n")
    below = config.from_profile(profile)
    resolved = resolve([below, config.from_file(file)])
    assert resolved.config.objective == {"name": "dft", "floor": 0.1}
    assert resolved.origins["objective.floor"] == f"profile {profile}"
    assert resolved.config.adapter.rank == 3
    named = resolve([below, Layer(config.FLAG, {"objective.name": "sft"})])
    assert named.config.objective == {"name": "sft"}
    profile.write_text("[adapter]\nrnk = 2\n")
    with pytest.raises(ConfigError, match=r"profile .*Did you mean 'adapter.rank'"):
        resolve([config.from_profile(profile)])


def test_a_flag_that_repeats_the_default_still_outranks_a_file():
    default = Config().adapter.rank
    layers = [
        Layer("file", {"adapter.rank": 99}),
        Layer(config.FLAG, {"adapter.rank": default}),
    ]
    assert resolve(layers).config.adapter.rank == default


def test_all_problems_are_reported_at_once_with_the_nearest_name():
    values = {"adapter.rnk": 8, "seed": -1, "optimizer.schedule": "cosin", "x": 1}
    with pytest.raises(ConfigError) as caught:
        resolve([Layer("file", values)])
    text = str(caught.value)
    assert "4 problems" in text
    assert "Did you mean 'adapter.rank'?" in text
    assert "at least 0" in text
    assert "'cosine'" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("adapter.rank", 2.5),
        ("adapter.rank", True),
        ("adapter.rank", "8"),
        ("optimizer.learning_rate", "fast"),
        ("optimizer.learning_rate", float("nan")),
        ("optimizer.learning_rate", 0),
        ("model.trust_remote_code", 1),
        ("evaluation.metrics", [1]),
        ("evaluation.metrics", 3),
        ("model", 3),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        resolve([Layer("file", {name: value})])


def test_a_layer_that_names_an_objective_drops_the_parameters_below():
    below = Layer("file", {"objective.name": "dft", "objective.floor": 0.1})
    above = Layer(config.FLAG, {"objective.name": "sft"})
    assert resolve([below, above]).config.objective == {"name": "sft"}
    adding = Layer(config.SET, {"objective.floor": 0.2})
    assert resolve([below, adding]).config.objective == {"name": "dft", "floor": 0.2}


def test_the_written_configuration_reads_back_as_the_same(tmp_path):
    values = {
        "model.source": 'a "quoted" \\ path',
        "objective.name": "dft",
        "objective.floor": 0.1,
        "evaluation.metrics": "nll, perplexity",
        "optimizer.learning_rate": 1e-5,
    }
    resolved = resolve([Layer(config.FLAG, values)])
    path = tmp_path / "config.toml"
    path.write_text(config.as_toml(resolved))
    assert resolve([config.from_file(path)]).config == resolved.config
    assert "rank = 8  # default" in path.read_text()
    assert "learning_rate = 1e-05  # flag" in path.read_text()
    assert tomllib.loads(path.read_text())["evaluation"]["metrics"] == [
        "nll",
        "perplexity",
    ]


def test_a_configuration_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        config.from_file(tmp_path / "gone.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("seed = \n")
    with pytest.raises(ConfigError, match="line 1"):
        config.from_file(broken)


def test_an_assignment_without_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"table\.key=value"):
        config.from_assignments(["adapter.rank"])


def test_what_must_be_given_is_asked_for_by_its_flag():
    with pytest.raises(ConfigError, match=r"--model[\s\S]*--data"):
        config.require(Config(), "model.source", "data.source")
