"""The part of a report about the calls: how often right, how sure, how far."""

from collections.abc import Iterator

from engine.evaluation import wording
from engine.evaluation.document import Block, Figure, Heading
from engine.evaluation.naming import BASELINES, Report, file_name, labels
from engine.evaluation.wording import TableOfValues, Values, figure, percent, points


def accuracy(report: Report) -> Iterator[Block]:
    """Right calls beside every baseline, and what else there is to say of them."""
    checkpoints = report["summary"]["checkpoints"]
    yield Heading("How often it is right")
    table = TableOfValues("caller", "right [95 % over days]", "Wilson", "rows")
    for label in labels(report):
        value = checkpoints[label]["accuracy"]
        bounds = [wording.plain(100 * bound, 1) for bound in value["wilson"] or ()]
        table.row(
            label,
            table.cell(value),
            f"[{', '.join(bounds)}]" if bounds else "",
            wording.count(value["n"]),
        )
    for name, baseline in checkpoints[labels(report)[0]]["baselines"].items():
        value = baseline["accuracy"]
        if name != "base_model":
            label = f"baseline {BASELINES.get(name, name)}"
            table.row(label, table.cell(value), "", wording.count(value["n"]))
    yield table.done(
        "A completion that cannot be read counts as wrong. Wilson's interval takes calls for"
        " independent, which those of one day are not: the one over days is to be believed."
    )
    yield Figure(
        "accuracy",
        "Share of right calls with the 95 % interval over days; the dashed line is a coin.",
    )
    for label in labels(report):
        yield from _accuracy_of(report, label)
    yield Figure(
        "roc",
        "ROC: of all rows that went up, the share with P(UP) above a threshold,"
        " against the same share of those that did not. On the diagonal is no ranking.",
    )


def _accuracy_of(report: Report, label: str) -> Iterator[Block]:
    one = report["summary"]["checkpoints"][label]
    yield Heading(f"{label}: accuracy", level=3)
    table = TableOfValues("less the baseline", "difference [95 % over days]", "rows")
    for name, baseline in one["baselines"].items():
        value = baseline["difference"]
        table.row(BASELINES.get(name, name), table.cell(value, points), wording.count(value["n"]))
    yield table.done("Above 0 is better than the baseline on the same rows.")
    table = TableOfValues("measure", "value [95 % over days]", "rows", "knowing nothing")
    sides, ups = one["sides"], one["up_share"]
    for name, value, by_chance in (
        ("balanced accuracy", one["balanced_accuracy"], "50 %"),
        ("right among rows that went up", sides["actual_up"], "share of UP calls"),
        ("right among rows that went down", sides["actual_down"], "share of DOWN calls"),
        ("right among calls of UP", sides["called_up"], percent(ups["market"]["value"])),
        ("right among calls of DOWN", sides["called_down"], percent(1 - ups["market"]["value"])),
        ("calls of UP", ups["calls"], "·"),
        ("rows that went up", ups["market"], "·"),
        ("completions that could be read", one["parsed"], "·"),
        ("completions with a confidence", one["stated"], "·"),
        ("completions cut at the length limit", one["truncated"], "·"),
    ):
        table.row(name, table.cell(value), wording.count(value["n"]), by_chance)
    for name, value, by_chance in (
        ("Matthews correlation", one["mcc"], "0"),
        ("ROC AUC of P(UP)", one["roc_auc"], "0.5"),
    ):
        table.row(name, table.cell(value, figure), wording.count(value["n"]), by_chance)
    value = one["excess"]
    name = "right beyond what its share of UP explains"
    table.row(name, table.cell(value, points), wording.count(value["n"]), "0 pp")
    tests = [
        _tested(
            "Pesaran–Timmermann (are calls and outcomes independent?)", one["pesaran_timmermann"]
        ),
        _tested("Permutation within days (calls of each day dealt out anew)", one["within_day"]),
    ]
    yield table.done(*tests)
    yield Figure(
        f"{file_name(report, label)}-years", f"{label}: right calls by year of the outcome."
    )
    yield Figure(f"{file_name(report, label)}-tickers", f"{label}: right calls by ticker.")


def _tested(name: str, test: Values) -> str:
    if test["value"] is None:
        return f"{name}: {wording.NOT_COMPUTABLE}, {test['why']}."
    return f"{name}: one-sided p {wording.p_value(test['p'])}, n {test['n']:,}."


def calibration(report: Report) -> Iterator[Block]:
    """Stated probabilities against what came true."""
    yield Heading("Are stated probabilities true?")
    for label in labels(report):
        one = report["summary"]["checkpoints"][label]
        brier, loss, stated = one["brier"], one["log_loss"], one["calibration"]
        yield Heading(f"{label}: calibration", level=3)
        table = TableOfValues("measure", "value [95 % over days]", "rows", "beside it")
        base, chance = brier["base_rate"], stated["ece_by_chance"]
        for name, value, beside in (
            ("Brier score", brier["score"], f"{_bare(base)} by the share of UP"),
            ("Brier skill", brier["skill"], "0 by the share of UP"),
            ("· reliability", brier["reliability"], "0 is best"),
            ("· resolution", brier["resolution"], "larger is better"),
            ("· within bins", brier["within_bins"], "·"),
            ("log loss", loss["score"], f"{_bare(loss['base_rate'])} by the share of UP"),
            ("calibration error (ECE)", stated["ece"], f"{_bare(chance)} by chance alone"),
        ):
            table.row(name, table.cell(value, figure), wording.count(value["n"]), beside)
        mean, hits = stated["mean"], stated["hit_rate"]
        table.row(
            "stated confidence, mean",
            table.cell(mean),
            wording.count(mean["n"]),
            f"{_bare_share(hits)} of these are right",
        )
        yield table.done()
        yield Figure(
            f"{file_name(report, label)}-reliability",
            f"{label}: share right by stated confidence, in bins of about equal size, with 95 %"
            " intervals and the number of calls; below, how often each confidence was stated.",
        )


def magnitudes(report: Report) -> Iterator[Block]:
    """Stated moves against saying that nothing moves."""
    yield Heading("How large it says the moves are")
    table = TableOfValues("checkpoint", "mean absolute error", "of saying 0 %", "skill", "rows")
    for label in labels(report):
        one = report["summary"]["checkpoints"][label]["magnitude"]
        table.row(
            label,
            table.cell(one["error"], lambda value: figure(value, 2)),
            table.cell(one["persistence"], lambda value: figure(value, 2)),
            table.cell(one["skill"], figure),
            wording.count(one["error"]["n"]),
        )
    yield table.done(
        "In percentage points. Saying 0 %, that the price stays, is persistence; a skill above 0"
        " is better than that."
    )


def _bare(value: Values) -> str:
    return wording.NOT_COMPUTABLE if value["value"] is None else wording.plain(value["value"], 3)


def _bare_share(value: Values) -> str:
    return wording.NOT_COMPUTABLE if value["value"] is None else percent(value["value"])
