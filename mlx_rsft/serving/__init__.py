"""An OpenAI-compatible server around one model, on mlx-lm's batching generator.

mlx-lm's own server loads what a client names, so it answers with the base model when a
client calls that by name, adapter or not. Here one model is handed out, whatever is
asked for, and nothing that a client sends is loaded, fetched or run.
"""
