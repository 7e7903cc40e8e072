"""Checks of prompts: no text tells a later price."""

import re
from math import sqrt

from engine.market import sampler
from engine.market.leakage.check import Check, counted
from engine.market.leakage.subject import Known, Subject
from engine.market.prompts import Style

_CHANGED_FUTURES = 150
_STYLES: tuple[Style, ...] = ("full", "compact", "brief", "masked")
_PRICE = re.compile(r"(?<![\d.])\d+\.\d\d(?!\d)")


def future_prices(subject: Subject) -> Check:
    """Prompts searched for the closes up to the outcome, as written and rebased.

    A price may stand in a prompt by chance: in dollars and cents there are not that many. Such
    a text must also stand there when every later price is another, and it must not be far
    commoner than that of a price as far on the other side.
    """
    hits = decoys = checked = 0
    offences = []
    for known, _ in subject.examples:
        texts = {style: subject.compose(known.example, style=style).text for style in _STYLES}
        checked += len(texts)
        found = {}
        for style, text in texts.items():
            written = set(_PRICE.findall(text))
            future, mirrored = _future_texts(known, masked=style == "masked")
            found[style] = written & future
            hits += bool(found[style])
            decoys += bool(written & mirrored)
        if not any(found.values()):
            continue
        other = subject.with_changed_future(known)
        for style, strings in found.items():
            if not strings:
                continue
            unexplained = strings - set(_PRICE.findall(subject.compose(other, style=style).text))
            if unexplained:
                offences.append(f"{known.example.key}: {min(unexplained)} in the {style} prompt")
    too_common = hits > 2 * decoys + 4 * sqrt(hits + decoys + 1)
    if too_common and not offences:
        offences.append(f"a future close stands in {hits} prompts, one as far off in {decoys}")
    return counted(
        "future-prices",
        "no prompt of any style prints a close of a later day up to the outcome",
        checked,
        offences,
        "prompts",
        f"{hits} coincidences, {decoys} with prices as far on the other side",
    )


def _future_texts(known: Known, *, masked: bool) -> tuple[set[str], set[str]]:
    """Texts of the closes up to the outcome, and of prices as far off on the other side."""
    example, history, index = known
    part = slice(index + 1, index + 1 + example.horizon)
    last = float(history.close[index])
    level = last / float(history.adjusted[index])
    values = {*(history.adjusted[part] * level).tolist(), *history.close[part].tolist()}
    scales = (1.0, 100 / example.window[0].close) if masked else (1.0,)
    # A close that did not move is the close that is shown.
    moved = [value for value in values if f"{value:.2f}" != f"{last:.2f}"]
    future = {f"{value * scale:.2f}" for value in moved for scale in scales}
    mirrored = {f"{(2 * last - value) * scale:.2f}" for value in moved for scale in scales}
    return future, mirrored


def changed_future(subject: Subject) -> Check:
    """Prompts built again from histories in which every later price is another."""
    chosen = sampler.spread(len(subject.examples), _CHANGED_FUTURES, subject.rng())
    offences = []
    for at in chosen.tolist():
        known, _ = subject.examples[at]
        other = subject.with_changed_future(known)
        for style in _STYLES:
            before = subject.compose(known.example, style=style).text
            after = subject.compose(other, style=style).text
            if before != after:
                offences.append(f"{known.example.key}: the {style} prompt changes")
    return counted(
        "changed-future",
        "prompts stay the same to the letter when every later price is another",
        len(chosen) * len(_STYLES),
        offences,
        "prompts",
    )
