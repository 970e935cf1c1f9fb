"""Published chat templates, and a real tokenizer that knows their special tokens."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mlx_rsft import files
from mlx_rsft.models import load, wheels
from mlx_rsft.models.download import download
from mlx_rsft.settings import ModelSettings

OWN = Path(__file__).parent / "templates"
WHEEL = "trl-1.16.0-py3-none-any.whl"
WHEEL_BYTES = 948_205
WHEEL_SHA256 = "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396"
CACHE = files.cache_folder() / "tests"  # read now, before any test moves the cache
LOOKS_SPECIAL = re.compile(
    r"<[|\N{FULLWIDTH VERTICAL LINE}][^<>'\"{}\s]+[|\N{FULLWIDTH VERTICAL LINE}]>"
    r"|</?[a-z_]+>|\[/?[A-Z_]+\]"
)


@pytest.fixture(scope="session")
def trl_wheel() -> Path:
    """TRL's wheel, which carries published templates as data; it is not installed."""
    wheel = CACHE / WHEEL
    with files.alone(CACHE / ".lock"):
        if not wheel.is_file() or files.sha256(wheel) != WHEEL_SHA256:
            wheel.unlink(missing_ok=True)
            url = wheels.locate("trl==1.16.0")
            download(url, wheel, size_bytes=WHEEL_BYTES, sha256=WHEEL_SHA256)
    return wheel


@pytest.fixture(scope="session")
def demo_tokenizer(demo_gguf) -> Any:
    """The demo model's tokenizer: 49,152 tokens, with its own template."""
    return load.tokenizer(ModelSettings(source=str(demo_gguf)))


@pytest.fixture(scope="session")
def template_text(demo_tokenizer, request) -> Callable[[str], str]:
    """A published template by its name."""

    def text(name: str) -> str:
        if name == "smollm2":
            return demo_tokenizer.chat_template
        if (OWN / f"{name}.jinja").exists():
            return (OWN / f"{name}.jinja").read_text(encoding="utf-8")
        with zipfile.ZipFile(request.getfixturevalue("trl_wheel")) as wheel:
            return wheel.read(f"trl/chat_templates/{name}.jinja").decode()

    return text


@pytest.fixture(scope="session")
def tokenizer_with(demo_tokenizer, template_text) -> Callable[..., Any]:
    """The demo model's words, with another model's template and special tokens."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = demo_tokenizer._tokenizer.backend_tokenizer.to_str()

    @cache
    def make(name: str, begin: str | None, ends: tuple[str, ...]) -> Any:
        source = template_text(name)
        special = {*LOOKS_SPECIAL.findall(source), *ends, *([begin] if begin else [])}
        inner = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(core),
            eos_token=ends[0],
            **({"bos_token": begin} if begin else {}),
        )
        inner.add_tokens(
            [AddedToken(t, special=True, normalized=False) for t in sorted(special)],
            special_tokens=True,
        )
        inner.chat_template = source
        numbers = inner.convert_tokens_to_ids(list(ends))
        return TokenizerWrapper(inner, eos_token_ids=numbers)

    return make
