"""Asking checkpoints: requests, examples, answers, and who answers them."""
