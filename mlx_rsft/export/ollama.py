"""A folder for ``ollama create``: the merged model and a Modelfile that asks it right.

Ollama takes a template of its own kind, and an imported model without one is given the
bare prompt. So the template is written out from the chat template, with what ends a turn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlx_rsft import files
from mlx_rsft.export import gguf_merged, turns
from mlx_rsft.export.live import Live
from mlx_rsft.export.product import Choices, Product

MODEL = "model.gguf"
PLAIN = "{{ .Prompt }}"


def write(live: Live, folder: Path, choices: Choices) -> Product:
    """Write ``model.gguf`` and ``Modelfile``.

    Raises:
        ConfigError: If the chat template is more than turns, or as ``gguf_merged``.
    """
    text, notes = modelfile(live.tokenizer)
    path = gguf_merged.file(live, folder, choices.merged_type)
    path = path.replace(folder / MODEL)
    files.write_text(folder / "Modelfile", text)
    notes += gguf_merged.notes(live, choices.merged_type)
    return Product("ollama", path, (*notes, "the Modelfile was not run by Ollama here"))


def modelfile(tokenizer: Any) -> tuple[str, list[str]]:
    """The Modelfile, and what is to be known of it.

    Raises:
        ConfigError: If the chat template is more than turns.
    """
    notes: list[str] = []
    ends = [str(tokenizer.convert_ids_to_tokens(at)) for at in tokenizer.eos_token_ids]
    if getattr(tokenizer, "chat_template", None):
        found = turns.find(tokenizer)
        template = found.as_go()
        ends.insert(0, found.answer[1].strip())
        notes.append(
            f"the template is {found.family or 'of no known name'}, without tools; "
            f"the system message goes into: {found.place}"
        )
    else:
        template = PLAIN
        notes.append("the model has no chat template; Ollama will hand it bare prompts")
    stops = [f'PARAMETER stop "{end}"' for end in dict.fromkeys(ends) if end]
    lines = [f"FROM ./{MODEL}", f'TEMPLATE """{template}"""', *sorted(stops)]
    return "\n".join(lines) + "\n", notes
