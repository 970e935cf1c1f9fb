import pytest

from mlx_rsft import files
from mlx_rsft.models import demo, wheels
from mlx_rsft.models.wheels import Packed, kept


def no_network(requirement):
    pytest.fail(f"asked where {requirement} lies")


@pytest.mark.parametrize("name", ["demo", "demo-gemma"])
def test_the_real_model_is_the_pinned_one(request, name):
    fixture = {"demo": "demo_gguf", "demo-gemma": "gemma_gguf"}[name]
    path = request.getfixturevalue(fixture)
    assert path.name == demo.MODELS[name].name
    assert files.sha256(path) == demo.MODELS[name].sha256
    assert kept(demo.MODELS[name], path.parent, ask=no_network) == path


def test_the_cache_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RSFT_CACHE", str(tmp_path / "elsewhere"))
    asked = []
    monkeypatch.setattr(
        wheels, "_bring", lambda wanted, path, *_: asked.append((wanted, path))
    )
    tiny = Packed("tiny.gguf", "0" * 64, ())
    monkeypatch.setitem(demo.MODELS, "demo", tiny)
    place = tmp_path / "elsewhere" / "demo" / "tiny.gguf"
    assert demo.gguf_file() == place
    assert asked == [(tiny, place)]
