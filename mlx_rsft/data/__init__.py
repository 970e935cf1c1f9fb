"""Data: from files to batches, and the mask on the way.

``file -> Row -> Conversation -> Example(tokens, spans) -> Batch``; each station is a
frozen record, each step between two a function.
"""
