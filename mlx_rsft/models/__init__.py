"""Models: find one, load it, split it at its head, put adapters on it."""
