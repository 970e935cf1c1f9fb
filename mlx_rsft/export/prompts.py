"""Fixed texts on which a merged model is compared with the live adapter."""

from __future__ import annotations

from typing import Any

from mlx_rsft.export.reading import Row

TEXTS = (
    "The three primary colours are red, yellow and blue. Water boils at one hundred "
    "degrees and freezes at zero.",
    "Spindle noisy at 3000 rpm, station 12. Bearing replaced, coolant checked, line "
    "running again after forty minutes.",
    "def area(width, height):\n    return width * height\n\nprint(area(3, 4))",
    "Q: What is the capital of France?\nA: The capital of France is Paris.",
    "Dear Sir or Madam, thank you for your letter of 12 May. We regret that the order "
    "was delayed and will refund the postage.",
    "Der Motor läuft heiß. Bitte prüfen Sie das Lager und den Kühlkreislauf.",
)


def rows(tokenizer: Any) -> list[Row]:
    """The texts as tokens; every token but the first is predicted."""
    encoded = [tokenizer.encode(text) for text in TEXTS]
    return [Row(tuple(ids), 1, greedy=False) for ids in encoded if len(ids) > 1]
