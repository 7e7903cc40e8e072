"""What a report says, block by block, in the order in which a person should read it.

A pure function of the contents of ``report.json``. Light: nothing heavy is imported.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.evaluation import sections_calls, wording
from engine.evaluation.document import (
    Block,
    Bullets,
    Figure,
    Heading,
    Mark,
    Quote,
    Table,
    Text,
    Verdict,
)
from engine.evaluation.naming import (
    EXECUTIONS,
    PORTFOLIOS,
    Report,
    file_name,
    labels,
    reward_name,
)
from engine.evaluation.wording import TableOfValues, Values, figure, percent, plain, points, share
from engine.runs.checkpoint_names import BASE

OVERLAP = (
    "FORCED: these days may overlap those of training. The numbers say nothing about unseen days."
)
SYNTHETIC = "made-up prices"


def blocks(report: Report) -> list[Block]:
    """The whole report."""
    parts = (
        sections_calls.accuracy,
        sections_calls.calibration,
        sections_calls.magnitudes,
        _rewards,
        _backtest,
        _comparisons,
        _examples,
        _method,
    )
    found = [*_opening(report), *_evaluated(report)]
    for part in parts:
        found += part(report)
    return _marked(found) if report["context"]["overlaps_training"] else found


def title(report: Report) -> str:
    """The report's title; that the source is synthetic is part of it."""
    context = report["context"]
    made_up = f" ({SYNTHETIC})" if context["is_synthetic"] else ""
    return f"Evaluation on the {context['split']} split of {context['source']}{made_up}"


def _marked(found: Sequence[Block]) -> list[Block]:
    marked: list[Block] = []
    for block in found:
        marked.append(block)
        if isinstance(block, Heading) and block.level <= 2:
            marked.append(Mark(OVERLAP))
    return marked


def _opening(report: Report) -> Iterator[Block]:
    yield Heading(title(report), level=1)
    for label in labels(report):
        verdict = report["verdicts"][label]
        yield Verdict(label, verdict["word"], tuple(verdict["reasons"]))


def _evaluated(report: Report) -> Iterator[Block]:
    context, summary = report["context"], report["summary"]
    trained, leakage = context["train_dates"], context["leakage"]
    suite = "did not run"
    if leakage is not None:
        suite = "green" if leakage["green"] else f"RED: {', '.join(leakage['failed'])}"
    how = (
        "greedily" if context["temperature"] == 0 else f"at temperature {context['temperature']:g}"
    )
    samples = context["samples"]
    yield Heading("What was evaluated")
    yield wording.listing(
        [
            ("evaluation", context["id"]),
            ("run", context["run"] or "none"),
            ("source", f"{context['source']}{f', {SYNTHETIC}' * context['is_synthetic']}"),
            ("split", f"{context['split']}, {' to '.join(context['dates'])}"),
            (
                "examples",
                f"{summary['examples']:,} on {summary['days']:,} days,"
                f" {samples} sample{'s' * (samples > 1)} each, {how}, seed {context['seed']}",
            ),
            ("looks at this split", f"{context['touches']}, this one included"),
            ("checkpoints tried on it", str(context["trials"])),
            ("trained on", " to ".join(trained) if trained else "not known"),
            ("leakage suite", suite),
            ("base model", context["base_model"]),
            ("reward scheme", context["scheme"]),
            ("made with", ", ".join(f"{name} {v}" for name, v in context["versions"].items())),
        ]
    )
    rows = [
        (
            one["label"],
            "·" if one["step"] is None else str(one["step"]),
            one["run"] or "·",
            one["hash"][:12],
        )
        for one in context["checkpoints"]
    ]
    yield Table(("checkpoint", "step", "run", "SHA-256"), tuple(rows), is_text=True)


def _rewards(report: Report) -> Iterator[Block]:
    yield Heading("Rewards")
    shown = labels(report)
    checkpoints = report["summary"]["checkpoints"]
    names = list(dict.fromkeys(name for label in shown for name in checkpoints[label]["rewards"]))
    for start in range(0, len(shown), 3):
        some = shown[start : start + 3]
        table = TableOfValues("mean [95 % over days]", *some)
        for name in names:
            values = [checkpoints[label]["rewards"].get(name) for label in some]
            table.row(reward_name(name), *(table.cell(value, figure) for value in values))
        n = ", ".join(f"{label} {checkpoints[label]['samples']:,}" for label in some)
        yield table.done(f"Completions: {n}. Reward scheme {report['context']['scheme']}.")
    yield Figure(
        "rewards",
        "Mean of each component of the reward and of the rubric, with 95 % intervals over days.",
    )


def _backtest(report: Report) -> Iterator[Block]:
    tests = report["backtest"]
    yield Heading("Backtest")
    if tests["why"] is not None:
        yield Text(f"{wording.NOT_COMPUTABLE}: {tests['why']}.")
        return
    yield Text(
        "An account that followed the calls: an equal part for each ticker called on a day, of"
        " which 2p − 1 is invested, p being the stated probability of UP, for one trading day. Fees"
        f" are {tests['cost_bps']:g} hundredths of a percent of the value traded. Past and"
        " simulated: no advice, and no proof by itself."
    )
    yield Text(
        "Sharpe ratio and volatility are of a year of 252 days. P(true > 0): chance that the true"
        " Sharpe ratio is above 0; deflated: above what the best of all checkpoints tried on this"
        " split would show by luck. Days won: of those with a position. Profit factor: gains over"
        " losses. Invested: of the account, on average."
    )
    for label in labels(report):
        one = tests["checkpoints"][label]
        yield Heading(f"{label}: backtest", level=3)
        for execution, told in EXECUTIONS.items():
            yield _portfolios(one, execution, told)
        yield Figure(
            f"{file_name(report, label)}-equity",
            f"{label}: worth of the account that trades at the next open, from 1, after fees, and"
            " how far it lies below its highest point so far.",
        )


_MEASURES = (
    ("sharpe", "Sharpe ratio", lambda value: figure(value, 2)),
    ("probabilistic_sharpe", "P(true > 0)", share),
    ("deflated_sharpe", "P, deflated", share),
    ("total_return", "total return", share),
    ("total_return_without_fees", "without fees", share),
    ("annual_return", "annual return", share),
    ("volatility", "volatility", share),
    ("max_drawdown", "max drawdown", share),
    ("win_rate", "days won", share),
    ("profit_factor", "profit factor", lambda value: figure(value, 2)),
    ("turnover", "turnover a day", share),
    ("exposure", "invested", share),
)


def _portfolios(one: Mapping[str, Any], execution: str, told: str) -> Table:
    table = TableOfValues(told, *PORTFOLIOS.values())
    columns = [one["portfolios"][f"{name}/{execution}"] for name in ("long_flat", "long_short")]
    columns.append(one["buy_and_hold"][execution])
    for key, name, written in _MEASURES:
        cells = [table.cell(column[key], written) if key in column else "·" for column in columns]
        table.row(name, *cells)
    days = one["num_days"][execution]
    trials = "1 checkpoint" if one["trials"] == 1 else f"{one['trials']} checkpoints"
    return table.done(
        f"{days:,} days from {one['first'][execution]} to {one['last'][execution]}, with calls on"
        f" {one['num_called_days']:,}; {trials} tried on this split. In brackets: 95 %."
    )


def _comparisons(report: Report) -> Iterator[Block]:
    pairs = report["summary"]["comparisons"]
    if not pairs:
        return
    yield Heading("Checkpoints against each other")
    table = TableOfValues("first − second", "accuracy", "McNemar p", "Diebold–Mariano p")
    for pair in pairs:
        # The one that training made stands first.
        is_turned = pair["first"] == BASE
        names = (pair["second"], pair["first"]) if is_turned else (pair["first"], pair["second"])
        value = _negative(pair["accuracy"]) if is_turned else pair["accuracy"]
        tests = [table.cell(pair[name], _p_values) for name in ("mcnemar", "diebold_mariano")]
        table.row(" − ".join(names), table.cell(value, points), *tests)
    yield table.done(
        "McNemar: are both right equally often, rows taken for independent. Diebold–Mariano: are"
        " the Brier losses of P(UP) equal, a day being one observation. Two-sided; in brackets"
        " after Holm's correction over all pairs."
    )


def _examples(report: Report) -> Iterator[Block]:
    if not any(report["examples"].values()):
        return
    yield Heading("A few completions")
    yield Text("Drawn by the seed, not chosen; shortened; as the model wrote them.")
    for label in labels(report):
        for one in report["examples"].get(label, ()):
            went = "UP" if one["actual_up"] else "DOWN"
            called = {True: "UP", False: "DOWN", None: "nothing readable"}[one["called_up"]]
            sure = "" if one["confidence"] is None else f" at {percent(one['confidence'], 0)}"
            verdict = "right" if one["right"] else "wrong"
            yield Quote(
                f"{verdict}: {label} on {one['key']} called {called}{sure}; it went {went} by"
                f" {plain(abs(one['actual_percent']), 2)} %; reward {plain(one['reward'], 2)}",
                one["completion"],
                one["right"],
            )


def _method(report: Report) -> Iterator[Block]:
    summary = report["summary"]
    yield Heading("How this was measured")
    yield Bullets(
        (
            f"Intervals over days: {summary['draws']:,} draws of whole days with replacement, 95 %"
            f" percentiles, seed {summary['seed']}. Calls of one day stand or fall together.",
            "Of several samples the majority is the call, and the mean stated probability of UP is"
            " P(UP); a tie or nothing readable counts as wrong.",
            "Baselines are measured on the same rows; differences on the same draws.",
            "The verdict goes by the interval over days, widened for the number of checkpoints"
            " tried on this split, and by the baselines. Choose on the validation split.",
            "Sharpe ratio: interval by circular block bootstrap of daily returns (Ledoit & Wolf"
            " 2008); probability by Bailey & López de Prado 2012, deflated by 2014.",
            "docs/evaluation.md has every definition and source. predictions.parquet beside this"
            " report has every prompt and completion: each number can be computed anew.",
        )
    )


def _p_values(test: Values) -> str:
    if test["p"] is None:
        return wording.NOT_COMPUTABLE
    return f"{wording.p_value(test['p'])} ({wording.p_value(test['p_holm'])})"


def _negative(value: Values) -> Values:
    number, low, high = (
        None if value[name] is None else -value[name] for name in ("value", "low", "high")
    )
    return {**value, "value": number, "low": high, "high": low}
