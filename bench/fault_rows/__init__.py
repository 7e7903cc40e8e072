"""Faults that a run has to survive, one module for each group of rows of `bench/faults.py`."""
