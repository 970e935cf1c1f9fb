"""Data: from files of conversations to batches of tokens."""
