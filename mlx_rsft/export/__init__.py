"""Adapters for other programs: written, then read back and compared with the live model.

A new target is one more line here; it is refused, written and read like the others.
"""

from mlx_rsft.export import gguf_lora, mlx_adapter, peft
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
}
