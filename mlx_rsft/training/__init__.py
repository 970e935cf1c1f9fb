"""Training: one optimizer step, and the loop around it."""
