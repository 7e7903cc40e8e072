"""Make the folder of an evaluation: what is evaluated on which rows, checked before anything runs.

As a program (``python -m engine.evaluation.preparation RUN_DIRECTORY``) it reads a request and a
folder as JSON from its standard input and writes where the evaluation is: market data takes seconds
to load, which is no work for the process that draws a cockpit.
"""

import datetime as dt
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunConfig
from engine.errors import UserError
from engine.evaluation import context as contexts
from engine.evaluation import identity, ledger, market_files, overlap, store
from engine.evaluation.asked import Asked
from engine.evaluation.context import Context, Evaluated
from engine.evaluation.request import EvaluationRequest
from engine.market import sampler, sources
from engine.market.dataset import Dataset, Rows
from engine.policy.source import Progress, ensure_model
from engine.rewards import choice
from engine.runs import checkpoint_names
from engine.runs.checkpoint_names import BASE
from engine.runs.directory import RunDirectory
from engine.runs.durable import fsync_directory
from engine.text import one_line

_LIBRARIES = ("stonk-tui", "torch", "transformers", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Prepared:
    """An evaluation that can be predicted, or gone on with."""

    folder: Path
    context: Context
    is_new: bool

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.context.finished is not None


def prepare(
    run: RunDirectory,
    request: EvaluationRequest,
    *,
    out: Path | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> Prepared:
    """The evaluation that ``request`` asks for: the one that it began earlier, or a new one.

    Args:
        run: the run whose worker is to predict.
        out: folder of the evaluation; None for one in the run's own.

    Raises:
        UserError: no such checkpoint or source, another base model, dates that overlap those of
            training, no row to evaluate, or a folder in the way.
    """
    config = run.config()
    request, missing = _pinned(request, run, config)
    if missing is not None:
        # Training removes old checkpoints, and an evaluation keeps copies of its own.
        if found := _begun(run, request, None, out):
            return found
        raise missing
    base = ensure_model(config.model.id, progress=progress)
    progress("looking at the checkpoints", 0, 0)
    checkpoints = identity.evaluated(request.checkpoints, run, model=config.model.id, base=base)
    if found := _begun(run, request, checkpoints, out):
        return found
    progress("reading the market data", 0, 0)
    assert request.source is not None
    load = lru_cache(sources.load)
    market = load(request.source)
    data = config.data.model_copy(update={"source": request.source})
    dataset = Dataset.configured(market.histories, data)
    rows = _rows(dataset, request)
    trained = overlap.training(checkpoints, lambda source: load(sources.absolute(source)).histories)
    dates = _dates(dataset, rows)
    problem = overlap.problem(trained, dates)
    if problem is not None and not request.force:
        raise UserError(
            problem,
            where="--source",
            fix="evaluate later dates, or take --force, which marks every page of the report",
        )
    key = ledger.split_key(
        request.source, market_files.digest(market.histories), request.split, config.data
    )
    created = dt.datetime.now(dt.UTC).replace(microsecond=0)
    identifier = f"{created.astimezone():%Y%m%d-%H%M%S}-{request.split}"
    usage = ledger.touch(
        key,
        [one.hash for one in checkpoints],
        {
            "time": created.isoformat(),
            "run": run.id,
            "evaluation": identifier,
            "source": request.source,
            "of": request.split,
            "labels": [one.label for one in checkpoints],
        },
    )
    context = Context(
        id=identifier,
        run=run.id,
        source=request.source,
        is_synthetic=market.report.synthetic,
        split=request.split,
        samples=request.samples,
        temperature=_temperature(request, config),
        seed=request.seed,
        checkpoints=checkpoints,
        base_model=config.model.id,
        dates=dates,
        num_examples=len(rows),
        train_dates=overlap.joint(trained),
        overlaps_training=problem is not None,
        touches=usage.touches,
        trials=len(usage.checkpoints),
        trial_sharpes=usage.others([one.hash for one in checkpoints]),
        leakage=None,
        scheme=one_line(config.reward.scheme, 200),
        versions=_versions(),
        created=created,
        seconds=None,
        split_key=key,
        request=request,
    )
    target = out.absolute() if out is not None else run.path / "evaluation" / identifier
    folder = _make(target, context, dataset, rows, config, progress, exact=out is not None)
    return Prepared(folder, contexts.read(folder), is_new=True)


def _pinned(
    request: EvaluationRequest, run: RunDirectory, config: RunConfig
) -> tuple[EvaluationRequest, UserError | None]:
    """``request`` in words that mean the same tomorrow, and why a checkpoint of it is not there."""
    if request.temperature is not None and request.samples == 1:
        raise UserError(
            "one sample is greedy and has no temperature",
            where="--temperature",
            fix="ask for more --samples, or leave it out",
        )
    names, missing = [], None
    for text in request.checkpoints:
        try:
            named = checkpoint_names.resolve(text, run)
        except UserError as error:
            missing = missing or error
            names.append(_spelled_out(text))
            continue
        names.append(
            BASE if named.folder is None else checkpoint_names.pinned(named, run),
        )
    source = sources.absolute(request.source or config.data.source)
    pinned = {"checkpoints": tuple(dict.fromkeys(names)), "source": source}
    return request.model_copy(update=pinned), missing


def _spelled_out(text: str) -> str:
    """``text`` as the name of a checkpoint that was there once."""
    before, colon, after = text.rpartition(":")
    step = re.fullmatch(r"step-(\d{1,9})", after)
    return f"{before}{colon}step-{int(step[1]):06d}" if step else text


def _begun(
    run: RunDirectory,
    request: EvaluationRequest,
    checkpoints: Sequence[Evaluated] | None,
    out: Path | None,
) -> Prepared | None:
    """The evaluation that the same request began earlier.

    Args:
        checkpoints: what the request means today; None where some of it is gone.
        out: the folder that was named.

    Raises:
        UserError: ``out`` holds something else.
    """
    if out is not None:
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return None
        context = contexts.read(out)
        if not _is_same(context, request, checkpoints):
            raise UserError(
                "this folder holds another evaluation",
                where=one_line(str(out)),
                fix="name a new folder",
            )
        return Prepared(out.absolute(), context, is_new=False)
    files = sorted((run.path / "evaluation").glob(f"*/{contexts.FILE}"), reverse=True)
    for file in files:
        context = contexts.read(file.parent)
        if context.finished is None and _is_same(context, request, checkpoints):
            return Prepared(file.parent, context, is_new=False)
    return None


def _is_same(
    context: Context, request: EvaluationRequest, checkpoints: Sequence[Evaluated] | None
) -> bool:
    if context.request != request:
        return False
    return checkpoints is None or context.checkpoints == tuple(checkpoints)


def _rows(dataset: Dataset, request: EvaluationRequest) -> Rows:
    """The rows to evaluate, in order of time.

    Raises:
        UserError: there is none, or a ticker that the source does not have.
    """
    rows = dataset.rows(request.split)
    if request.tickers:
        known = [history.ticker for history in dataset.histories]
        for ticker in request.tickers:
            if ticker not in known:
                raise UserError(
                    f"no ticker called {one_line(ticker, 40)!r}",
                    where="--ticker",
                    fix=f"there are {len(known)}, such as {', '.join(known[:5])}",
                )
        wanted = [known.index(ticker) for ticker in request.tickers]
        rows = rows.take(np.flatnonzero(np.isin(rows.history, wanted)))
    if not len(rows):
        raise UserError(
            f"the {request.split} split of {one_line(str(request.source), 60)} has no row to "
            "evaluate",
            where="--source",
            fix="use a longer history, another split or other tickers",
        )
    limit = len(rows) if request.examples is None else request.examples
    return rows.take(sampler.over_time(rows, limit, request.seed))


def _dates(dataset: Dataset, rows: Rows) -> contexts.Dates:
    """First as-of day and last label day."""
    last = max(
        dataset.histories[history].days[index + dataset.horizon].item()
        for history, index in zip(rows.history.tolist(), rows.index.tolist(), strict=True)
    )
    return rows.day.min().item(), last


def _temperature(request: EvaluationRequest, config: RunConfig) -> float:
    if request.samples == 1:
        return 0.0
    return request.temperature or config.rollout.temperature


def _make(
    target: Path,
    context: Context,
    dataset: Dataset,
    rows: Rows,
    config: RunConfig,
    progress: Progress,
    *,
    exact: bool,
) -> Path:
    """Write the folder: all of it appears at once, under another name where that is taken.

    Args:
        exact: under no other name.

    Raises:
        UserError: it cannot be written.
    """
    # Only to find out early that a component of the run's reward is gone.
    choice.resolve(config.reward)
    where = one_line(str(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            asked = _asked(dataset, rows, config, progress)
            identity.keep(context.checkpoints, scratch)
            store.create(scratch, [one.row() for one in asked])
            progress("fitting the logistic regression", 0, 0)
            market_files.write_baselines(scratch, dataset, rows, context.seed)
            market_files.write_prices(scratch, dataset, rows)
            return _put(scratch, target, context, exact=exact)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=where) from error


def _put(scratch: Path, target: Path, context: Context, *, exact: bool) -> Path:
    """Move the finished folder to its place."""
    for number in range(1, 100):
        suffix = "" if number == 1 else f"-{number}"
        folder = target.with_name(target.name + suffix)
        context.model_copy(update={"id": context.id + suffix}).write(scratch)
        try:
            # Fails where the folder is there already and holds something.
            scratch.rename(folder)
        except OSError:
            if exact or not folder.exists():
                raise
            continue
        fsync_directory(folder.parent)
        return folder
    raise UserError("too many evaluations began in the same second", where=one_line(str(target)))


def _asked(dataset: Dataset, rows: Rows, config: RunConfig, progress: Progress) -> Sequence[Asked]:
    asked = []
    pairs = zip(rows.history.tolist(), rows.index.tolist(), strict=True)
    for done, (history, index) in enumerate(pairs):
        if done % 200 == 0:
            progress("making the examples", done, len(rows))
        asked.append(Asked.of(dataset.example(history, index), config))
    return asked


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # Run from its source folder.
            continue
    return found


def main(run: Path, tell: Callable[[str], Any] = print) -> int:
    """Read ``{"request", "out"}`` from standard input and write ``{"folder", ...}``."""
    try:
        values = json.loads(sys.stdin.read())
        request = EvaluationRequest.model_validate(values["request"])
        out = None if values["out"] is None else Path(values["out"])
        prepared = prepare(RunDirectory(run), request, out=out)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    tell(
        json.dumps(
            {
                "folder": str(prepared.folder),
                "is_new": prepared.is_new,
                "is_finished": prepared.is_finished,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
