"""Adapters for other programs: written, then read back and compared with the live model.

A new target is one more line here; it is refused, written and read like the others.
"""

from mlx_rsft.export import (
    fused,
    gguf_lora,
    gguf_merged,
    lmstudio,
    mlx_adapter,
    ollama,
    peft,
)
from mlx_rsft.export.product import Exporter

EXPORTERS: dict[str, Exporter] = {
    "mlx": Exporter(
        "mlx-lm adapter: mlx_lm.generate, mlx_lm.server, mlx-rsft",
        mlx_adapter.write,
        ("mlx-lm",),
    ),
    "peft": Exporter(
        "PEFT adapter: transformers, vLLM, SGLang, TGI",
        peft.write,
        ("mlx-rsft", "peft"),
    ),
    "gguf": Exporter(
        "GGUF LoRA adapter: llama.cpp, Ollama", gguf_lora.write, ("gguf", "llama.cpp")
    ),
    "fused": Exporter(
        "whole MLX model: mlx-lm, oMLX, LM Studio", fused.write, ("mlx-lm-model",)
    ),
    "lmstudio": Exporter(
        "whole MLX model where LM Studio looks for it",
        lmstudio.write,
        ("mlx-lm-model",),
    ),
    "gguf-merged": Exporter(
        "whole GGUF model: llama.cpp, LM Studio",
        gguf_merged.write,
        ("gguf-model", "llama.cpp-model"),
    ),
    "ollama": Exporter(
        "whole GGUF model with a Modelfile",
        ollama.write,
        ("gguf-model", "llama.cpp-model"),
    ),
}
