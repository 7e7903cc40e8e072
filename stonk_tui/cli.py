"""The command line: what can be typed, and how an error becomes one line and an exit code.

Every command imports what it needs when it runs, so that ``--help`` answers at once.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from engine.errors import RunFailedError, UserError
from engine.runs.disk import refusal
from engine.text import one_line
from stonk_tui.commands.output import note, show_traceback


class _Program(TyperGroup):
    """Turn what a command raises into one line and an exit code, whoever runs it."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().make_context(*args, **extra)
        except typer.TyperException as error:
            _refuse(error)

    # The context's type is private to typer.
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.TyperException as error:
            _refuse(error)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001
            debug = ctx.params.get("debug", False)
            if debug:
                show_traceback(error)
            if isinstance(error, UserError | RunFailedError):
                note(str(error))
                raise typer.Exit(error.exit_code) from None
            if isinstance(error, OSError) and (line := refusal(error)) is not None:
                note(line)
                raise typer.Exit(RunFailedError.exit_code) from None
            hint = "" if debug else "; run again with --debug for the traceback"
            note(f"{type(error).__name__}: {one_line(str(error), 300)}{hint}")
            raise typer.Exit(1) from None


def _refuse(error: typer.TyperException) -> NoReturn:
    """Say in one line what is wrong with the words that were typed."""
    # Help is no refusal.
    if type(error).__name__ == "NoArgsIsHelpError":
        raise error
    said = one_line(error.format_message(), 400).rstrip(".").replace("Value error, ", "")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "stonk-tui"
    note(f"{said[:1].lower()}{said[1:]}; see `{command} --help`")
    raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    name="stonk-tui",
    cls=_Program,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


data = typer.Typer(
    help="Look at market data, check it for leaks, write it as files.", no_args_is_help=True
)
app.add_typer(data, name="data")
preferences = typer.Typer(
    help="The cockpit's settings: where they are, what holds, what is wrong.", no_args_is_help=True
)
app.add_typer(preferences, name="settings")


class Quantize(StrEnum):
    """How the frozen base is stored."""

    AUTO = "auto"
    NF4 = "nf4"
    NONE = "none"


class ExportForm(StrEnum):
    """What an export is."""

    ADAPTER = "adapter"
    MERGED = "merged"


class TableFormat(StrEnum):
    """How rollouts are written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class Style(StrEnum):
    """What a prompt shows."""

    FULL = "full"
    COMPACT = "compact"
    BRIEF = "brief"
    MASKED = "masked"


class Split(StrEnum):
    """Part of the days of a source, in order of time."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Normalisation(StrEnum):
    """How prepared prices are scaled."""

    NONE = "none"
    STANDARD = "standard"


def _check_device(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise typer.BadParameter("use auto, cpu, cuda or cuda:N")
    return value


def _check_hours(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise typer.BadParameter("must be above 0")
    return value


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            number = version("stonk-tui")
        except PackageNotFoundError:
            number = "(not installed: run from its source folder)"
        typer.echo(f"stonk-tui {number}")
        raise typer.Exit


Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN", help="Run id or an unambiguous part of it; the newest if left out."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON; docs/cli.md holds its schema.")]
Timeout = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the worker's answer.")
]
Model = Annotated[
    str | None,
    typer.Option(metavar="ID", help="smollm2-135m, a Hugging Face id, or a local folder."),
]
QuantizeOption = Annotated[
    Quantize | None, typer.Option(help="4-bit base: when 16 bits do not fit, always, or never.")
]
Device = Annotated[
    str | None,
    typer.Option(metavar="DEVICE", callback=_check_device, help="auto, cpu, cuda or cuda:N."),
]
Source = Annotated[
    str, typer.Option(metavar="SOURCE", help="Market data; `stonk-tui data sources` lists them.")
]
Horizon = Annotated[
    int, typer.Option(min=1, max=10, help="Trading days from the as-of day to the outcome.")
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let reward components of your own run: they are code.")
]
Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Take the very same steps when repeated or resumed.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; may be repeated."),
]


@app.callback(invoke_without_command=True)
def cockpit(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
    ascii_only: Annotated[
        bool, typer.Option("--ascii", help="Draw the cockpit with ASCII alone.")
    ] = False,
) -> None:
    """Train a language model by GRPO to call tomorrow's direction of a stock, and watch it.

    Without a command the cockpit opens on the newest run that is at work.
    """
    if ascii_only:
        os.environ["STONK_ASCII"] = "1"
    if context.invoked_subcommand is None:
        from stonk_tui.commands.cockpit import open_newest

        open_newest()


@app.command()
def demo(
    steps: Annotated[int | None, typer.Option(min=1, help="GRPO steps.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Random seed.")] = None,
    model: Model = None,
    quantize: QuantizeOption = None,
    device: Device = None,
    settings: Settings = None,
    deterministic: Deterministic = False,
    planted: Annotated[
        bool,
        typer.Option("--planted", help="Made-up prices with a rule in them, which is found."),
    ] = False,
) -> None:
    """Train the small embedded model on bundled prices; needs neither GPU nor model hub."""
    from stonk_tui.commands.start import start_preset

    chosen = {"schedule.max_steps": steps, "seed": seed, "deterministic": deterministic or None}
    overrides = _overrides(settings, model, quantize, device, chosen)
    start_preset("prove" if planted else "demo", overrides, detach=False)


@app.command()
def train(
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|RUN",
            help="YAML configuration; with --resume the run to go on with.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Named configuration, such as demo.")
    ] = None,
    settings: Settings = None,
    model: Model = None,
    quantize: QuantizeOption = None,
    device: Device = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start, print the run id, and return.")
    ] = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Make the run, print its id, and start nothing.")
    ] = False,
    max_hours: Annotated[
        float | None,
        typer.Option(
            metavar="H", callback=_check_hours, help="Stop with a checkpoint after H hours."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on from the last checkpoint of RUN, the newest if left out."
        ),
    ] = False,
    deterministic: Deterministic = False,
    allow_code: AllowCode = False,
) -> None:
    """Start a run, or go on with one that was stopped."""
    from stonk_tui.commands import start

    chosen = {"schedule.max_hours": max_hours, "deterministic": deterministic or None}
    overrides = _overrides(settings, model, quantize, device, chosen)
    if resume:
        if preset or overrides or prepare:
            raise typer.BadParameter(
                "a run keeps the configuration it was started with; only RUN, --detach and "
                "--allow-code go with --resume",
                param_hint="--resume",
            )
        start.resume(config, detach=detach, allow_code=allow_code)
    elif config is None:
        start.start_preset(
            preset or "stage1",
            overrides,
            detach=detach,
            prepare_only=prepare,
            allow_code=allow_code,
        )
    elif preset:
        raise typer.BadParameter("give a CONFIG or a --preset, not both", param_hint="--preset")
    else:
        start.start_file(
            config, overrides, detach=detach, prepare_only=prepare, allow_code=allow_code
        )


@app.command()
def runs(as_json: AsJson = False) -> None:
    """List all runs, newest first."""
    from stonk_tui.commands.reports import print_runs

    print_runs(as_json=as_json)


@app.command()
def status(run: Run = None, as_json: AsJson = False) -> None:
    """Say where a run stands."""
    from stonk_tui.commands.reports import print_status

    print_status(run, as_json=as_json)


@app.command()
def attach(
    run: Run = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Watch; send no commands.")
    ] = False,
) -> None:
    """Open the cockpit on a run; any number of cockpits may watch."""
    from stonk_tui.commands.cockpit import attach as open_attached

    open_attached(run, read_only=read_only)


@app.command()
def serve(
    run: Run = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes any that is free.")
    ] = 8000,
    allow_control: Annotated[
        bool, typer.Option("--allow-control", help="Let the page send commands; else it watches.")
    ] = False,
) -> None:
    """Show the cockpit in a browser, on this machine alone; prints the ssh tunnel to reach it."""
    from stonk_tui.commands.serve import serve as serve_page

    serve_page(run, port, allow_control=allow_control)


@app.command()
def pause(run: Run = None, timeout: Timeout = 60) -> None:
    """Pause a run between two steps; it keeps its device and memory."""
    _command("pause", run, timeout)


@app.command()
def resume(run: Run = None, timeout: Timeout = 60) -> None:
    """Let a paused run go on (`train --resume` restarts one that was stopped)."""
    _command("resume", run, timeout)


@app.command()
def checkpoint(run: Run = None, timeout: Timeout = 60) -> None:
    """Save a checkpoint between two steps."""
    _command("checkpoint", run, timeout)


@app.command()
def stop(run: Run = None, timeout: Timeout = 60) -> None:
    """Stop a run between two steps; its checkpoint is kept."""
    _command("stop", run, timeout)


@app.command("set")
def set_(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [KEY=VALUE]...",
            help="Run id or an unambiguous part of it, the newest if left out; then settings, "
            "such as learning_rate=5e-5. Without settings those that can change are listed.",
        ),
    ] = None,
    timeout: Timeout = 60,
    as_json: AsJson = False,
) -> None:
    """Change settings of a run from its next step on, all of them or none."""
    from stonk_tui.commands.live_settings import change

    change(arguments or (), timeout, as_json=as_json)


@app.command()
def delete(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id or an unambiguous part of it.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run with its checkpoints; one that is at work is refused."""
    from stonk_tui.commands.delete import delete as delete_run

    delete_run(run, yes=yes)


@app.command()
def promote(
    run: Run = None,
    checkpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="best (if left out), last or step-N of RUN.")
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A LoRA adapter that was trained elsewhere, not a RUN."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --adapter: Stage I preset of base and data."),
    ] = None,
    model: Model = None,
    settings: Settings = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although not all four indicators are on.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; kept in the record of the promotion.")
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start the Stage II run.")] = False,
) -> None:
    """Make a Stage II run out of a Stage I checkpoint; prints its id last."""
    from stonk_tui.commands import promote as promoting

    overrides = _overrides(settings, model, None, None, {})
    if adapter is not None:
        if run is not None or checkpoint is not None:
            raise typer.BadParameter("give a RUN or an --adapter, not both", param_hint="--adapter")
        promoting.promote_adapter(
            adapter, preset, overrides, reason=reason, forced=force, starts=start
        )
        return
    if preset or overrides:
        raise typer.BadParameter(
            "--preset, --model and --set go with --adapter; a RUN brings its own, and run.yaml of "
            "the Stage II run can be edited before it starts",
            param_hint="--adapter",
        )
    promoting.promote(run, checkpoint or "best", reason=reason, forced=force, starts=start)


@app.command()
def export(
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="New or empty folder; for rollouts a new file.")
    ],
    run: Run = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="best, last, step-N, RUN:step-N, or a folder."),
    ] = None,
    form: Annotated[
        ExportForm | None, typer.Option("--as", help="One LoRA adapter, or merged 16-bit weights.")
    ] = None,
    rollouts: Annotated[
        bool, typer.Option("--rollouts", help="The rollouts of RUN, not a checkpoint.")
    ] = False,
    selection: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="TEXT", help="Which rollouts, as in 'right:no reward<0.3'."
        ),
    ] = None,
    table_format: Annotated[
        TableFormat | None,
        typer.Option("--format", help="How rollouts are written; left out, as --out ends."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint, or the rollouts of a run, as files that other tools load."""
    if rollouts:
        if checkpoint is not None or form is not None:
            raise typer.BadParameter(
                "--checkpoint and --as do not go with --rollouts", param_hint="--rollouts"
            )
        from stonk_tui.commands.export_rollouts import export_rollouts

        export_rollouts(
            run,
            selection or "",
            table_format.value if table_format else None,
            out,
            as_json=as_json,
        )
        return
    if run is not None or selection is not None or table_format is not None:
        raise typer.BadParameter(
            "RUN, --filter and --format go with --rollouts", param_hint="--rollouts"
        )
    if checkpoint is None or form is None:
        raise typer.BadParameter(
            "give --checkpoint and --as, or --rollouts", param_hint="--checkpoint"
        )
    from stonk_tui.commands.export import export as export_checkpoint

    export_checkpoint(checkpoint, form.value, out, as_json=as_json)


@app.command()
def score(
    completion: Annotated[
        str, typer.Option(metavar="FILE", help="What the model wrote; - reads stdin.")
    ],
    example: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `stonk-tui data show --json` printed."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Market data of the example.")
    ] = None,
    ticker: Annotated[str | None, typer.Option(metavar="T", help="Ticker of the example.")] = None,
    date: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="As-of day of the example.")
    ] = None,
    style: Annotated[
        Style | None, typer.Option(help="Prompt that the model saw; compact if left out.")
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(min=1, max=10, help="Trading days to the outcome; 1 if left out."),
    ] = None,
    scheme: Annotated[
        str, typer.Option(metavar="NAME", help="stage1, stage2, rubric, or a YAML file.")
    ] = "stage1",
    component: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE.py:FUNCTION", help="One of your own; may be repeated."),
    ] = None,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Score a completion: what was read, every component with its reason, the reward."""
    from stonk_tui.commands.score import Place, print_score

    place = Place(source, ticker, date, style.value if style else None, horizon)
    print_score(
        completion,
        example=example,
        place=place,
        scheme=scheme,
        components=component or (),
        allow_code=allow_code,
        as_json=as_json,
    )


@app.command()
def probe(
    checkpoint: Annotated[
        list[str],
        typer.Option(
            metavar="NAME", help="base, best, last, step-N, RUN:NAME, or a folder; up to four."
        ),
    ],
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Whose worker answers; the first checkpoint's run if left out."
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Example typed by hand, or what `data show` printed."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Market data; the run's own if left out.")
    ] = None,
    ticker: Annotated[str | None, typer.Option(metavar="T", help="Ticker of the example.")] = None,
    date: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="As-of day of the example.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=64, help="Completions a checkpoint.")] = 8,
    temperature: Annotated[
        float | None, typer.Option(min=0.01, max=5, help="The run's own if left out.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="The same one gives the same samples.")
    ] = 0,
    timeout: Timeout = 600,
    as_json: AsJson = False,
) -> None:
    """Ask checkpoints about one example; a run in training answers between two steps."""
    from engine.probe.request import MAX_CHECKPOINTS, Wanted
    from stonk_tui.commands import probe as probing

    if len(checkpoint) > MAX_CHECKPOINTS:
        raise typer.BadParameter(f"at most {MAX_CHECKPOINTS} at once", param_hint="--checkpoint")
    if file is not None and (source, ticker, date) != (None, None, None):
        raise typer.BadParameter("give a file or source, ticker and date", param_hint="--file")
    probing.probe(
        run,
        checkpoint,
        wanted=probing.from_file(file) if file else Wanted(source, ticker, date),
        samples=samples,
        temperature=temperature,
        seed=seed,
        timeout=timeout,
        as_json=as_json,
    )


@app.command("eval")
def eval_(
    checkpoint: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="base, best, last, step-N, RUN:NAME, or a folder."),
    ],
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="Whose worker predicts; the first checkpoint's run if left out."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Market data; the run's own if left out.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Which rows of it.")] = Split.TEST,
    samples: Annotated[
        int, typer.Option(min=1, max=64, help="Completions of each example; one is greedy.")
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.01, max=5, help="Of several samples; the run's own if left out."),
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many, spread over the days.")
    ] = None,
    ticker: Annotated[
        list[str] | None, typer.Option(metavar="T", help="This one alone; may be repeated.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Of examples, samples and intervals.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New or empty folder; in the run's own if left out."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Although the dates overlap those of training.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate checkpoints on unseen days; the same command goes on with what was interrupted."""
    from engine.evaluation.request import build
    from stonk_tui.commands.evaluate import evaluate

    request = build(
        checkpoints=checkpoint,
        source=source,
        split=split.value,
        samples=samples,
        temperature=temperature,
        examples=examples,
        tickers=ticker or (),
        seed=seed,
        force=force,
    )
    evaluate(run, request, out=out, as_json=as_json)


@app.command()
def report(
    evaluation: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|FOLDER",
            help="A run, whose newest report is shown, the newest run if left out; or the folder "
            "of an evaluation.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the report of an evaluation: verdict, tables and figures."""
    from stonk_tui.commands.evaluation_report import print_report

    print_report(evaluation, as_json=as_json)


@app.command()
def doctor(
    model: Model = None,
    deep: Annotated[
        bool,
        typer.Option(
            "--deep", help="Kill a store's writer and a tiny run too, and look for losses."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check this machine against what a model needs, with a fix for what is missing."""
    from stonk_tui.commands.reports import print_doctor

    print_doctor(model, deep=deep, as_json=as_json)


@data.command("sources")
def data_sources() -> None:
    """List the kinds of market data and how each is written."""
    from stonk_tui.commands.data import print_sources

    print_sources()


@data.command("show")
def data_show(
    source: Source,
    ticker: Annotated[str, typer.Option(metavar="T", help="Ticker, such as AAPL.")],
    date: Annotated[str, typer.Option(metavar="YYYY-MM-DD", help="As-of day.")],
    style: Annotated[Style, typer.Option(help="What the prompt shows.")] = Style.FULL,
    horizon: Horizon = 1,
    as_json: AsJson = False,
) -> None:
    """Show an example as the model would see it, its label, and when each fact was known."""
    from stonk_tui.commands.data import show

    show(source, ticker, date, style=style.value, horizon=horizon, as_json=as_json)


@data.command("stats")
def data_stats(source: Source, horizon: Horizon = 1, as_json: AsJson = False) -> None:
    """Count rows by ticker and split, sides, gaps, stock splits, and what was refused and why."""
    from stonk_tui.commands.data import print_stats

    print_stats(source, horizon=horizon, as_json=as_json)


@data.command("check")
def data_check(source: Source, horizon: Horizon = 1, as_json: AsJson = False) -> None:
    """Prove that no example holds anything from its future; exit code 1 where one does."""
    from stonk_tui.commands.data import check

    check(source, horizon=horizon, as_json=as_json)


@data.command("prepare")
def data_prepare(
    source: Source,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write, new or ours.")],
    window: Annotated[int, typer.Option(metavar="N", help="Trading days of X.")] = 10,
    horizon: Annotated[int, typer.Option(metavar="N", help="Trading days of Y.")] = 10,
    normalisation: Annotated[
        Normalisation, typer.Option(help="Scale by each ticker's training windows, or not.")
    ] = Normalisation.NONE,
) -> None:
    """Write windows of prices with indicators and statistics as CSV files."""
    from stonk_tui.commands.data import prepare

    prepare(source, out, window=window, horizon=horizon, normalisation=normalisation.value)


@preferences.command("path")
def settings_path() -> None:
    """Say where the file is."""
    from stonk_tui.commands.settings import print_path

    print_path()


@preferences.command("show")
def settings_show() -> None:
    """Print what holds, as a file that can be kept and changed."""
    from stonk_tui.commands.settings import show

    show()


@preferences.command("check")
def settings_check() -> None:
    """Say what is wrong with the file, line by line; exit code 2 where something is."""
    from stonk_tui.commands.settings import check

    check()


def main() -> None:
    """Entry point of the program."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is not UTF-8 shows a question mark instead of ending the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    arguments = sys.argv[1:]
    # They belong to every command, and people type them at the end.
    for option in ("--debug", "--ascii"):
        if option in arguments:
            arguments.remove(option)
            arguments.insert(0, option)
    app(arguments, prog_name="stonk-tui")


def _command(verb: str, run: str | None, timeout: float) -> None:
    from stonk_tui.commands.control import send_and_wait

    send_and_wait(verb, run, timeout)


def _overrides(
    settings: list[str] | None,
    model: str | None,
    quantize: Quantize | None,
    device: str | None,
    chosen: Mapping[str, int | float | None],
) -> list[str]:
    """``--set`` settings, then the options that have names of their own, as ``key=value``.

    JSON is YAML: so a value that looks like a number or a mapping stays a text.
    """
    named = {"model.id": model, "model.quantize": quantize, "model.device": device, **chosen}
    return [
        *(settings or []),
        *(f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None),
    ]
