"""Evaluation: intervals, scores, baselines and metrics about predictions."""
