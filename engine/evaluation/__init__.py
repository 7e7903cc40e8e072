"""Evaluation: intervals and metrics about predictions."""
