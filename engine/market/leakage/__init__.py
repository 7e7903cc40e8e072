"""Checks that no example holds anything from its future.

Each check is a function of a ``Subject``: the data as its source delivered them, and the parts that
make examples, prompts and scalers of them. The parts are arguments, so that a leak can be put
into any of them and the check that names it proven. What a check expects it computes itself from
the delivered data, not by the part that it judges.

Checks of single examples look at a seeded sample; those of rows and prices look at all. None can
see what the source itself got wrong: prices that were corrected later, tickers chosen afterwards.
"""

from engine.market.leakage.check import Check
from engine.market.leakage.predictor import feature_shift, label_shuffle
from engine.market.leakage.subject import Subject
from engine.market.leakage.suite import CHECKS, Audit, audit

__all__ = ["CHECKS", "Audit", "Check", "Subject", "audit", "feature_shift", "label_shuffle"]
