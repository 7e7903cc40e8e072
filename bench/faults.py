"""Break what can break, many times, and count what did not survive it.

    python bench/faults.py --list
    python bench/faults.py kill-worker --continue --out bench/results/faults
    python bench/faults.py --table

Each row makes its trials one after the other, each in a folder of its own, with its number as the
seed. After every trial the result so far is written, so that ``--continue`` goes on where it was
left, over many evenings if need be. The rows' modules are in ``bench/fault_rows``; the test suite
makes a short form of each.
"""

import argparse
import importlib
import json
import pkgutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from bench import fault_rows
from bench.fault_rows.row import Outcome, Row, bound
from bench.machine import machine

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
BEGIN, END = "<!-- made by bench/faults.py --table -->", "<!-- end of the table -->"
RESULTS = Path("bench/results/faults")
LIBRARIES = ("torch", "textual", "safetensors")


def rows() -> dict[str, Row]:
    """Every row there is, by name."""
    found: dict[str, Row] = {}
    for module in sorted(pkgutil.iter_modules(fault_rows.__path__), key=lambda one: one.name):
        for row in getattr(importlib.import_module(f"bench.fault_rows.{module.name}"), "ROWS", ()):
            found[row.name] = row
    return found


def make(row: Row, total: int, done: dict[str, Any], save: Any) -> dict[str, Any]:
    """Trials of ``row`` up to ``total``, added to what is ``done``; ``save`` after each."""
    failures, figures = list(done.get("failures", [])), dict(done.get("figures", {}))
    started, first = time.monotonic(), int(done.get("trials", 0))
    for number in range(first, total, row.batch):
        with tempfile.TemporaryDirectory(prefix=f"faults-{row.name}-") as folder:
            try:
                outcome = row.trial(number, Path(folder))
            except TimeoutError as error:
                outcome = Outcome(str(error))
        if outcome.problem:
            failures.append({"trial": number, "problem": outcome.problem})
            print(f"{row.name} {number}: {outcome.problem}", flush=True)
        for name, value in outcome.figures.items():
            figures.setdefault(name, []).append(round(float(value), 4))
        made = number + row.batch
        done = {"trials": made, "failures": failures, "figures": figures}
        save(done)
        seconds = (time.monotonic() - started) / (made - first) * max(0, total - made)
        sys.stderr.write(f"\r{row.name} {made}/{total}, {seconds / 60:.1f} min left ")
    sys.stderr.write("\n")
    return done


def report(row: Row, done: dict[str, Any]) -> str:
    """One line about a row, for a person."""
    passed = done["trials"] - len(done["failures"])
    spread = "".join(
        f"; {name} median {median(values):.4g}, most {max(values):.4g}"
        for name, values in sorted(done["figures"].items())
    )
    rate = bound(len(done["failures"]), done["trials"])
    return f"{row.name}: {passed} of {done['trials']} passed ({rate}){spread}"


def table(known: Mapping[str, Row], results: Path) -> str:
    """The rows with what came of each so far, for ``docs/reliability.md``."""
    lines = ["| row | what has to hold after every trial | result |", "|---|---|---|"]
    for row in known.values():
        path = results / f"{row.name}.json"
        result = _result(row, json.loads(path.read_text())) if path.exists() else "not run yet"
        lines.append(f"| `{row.name}` | {row.passes} | {result} |")
    return "\n".join(lines)


def _result(row: Row, done: Mapping[str, Any]) -> str:
    """What is known of a row, in a cell of the table."""
    trials, failures = done["trials"], len(done["failures"])
    so_far = "" if trials >= row.trials else f" (of {row.trials})"
    words = [f"{trials - failures} of {trials} passed{so_far}: {bound(failures, trials)}"]
    if done.get("verdict"):
        words.append(f"but {done['verdict']}")
    return "; ".join(words)


def put_table(page: str, made: str) -> str:
    """``page`` with the table between its two marks replaced by ``made``."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE}: the marks of the table are gone")
    return f"{head}{begin}\n{made}\n{end}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description="break what can break, many times")
    parser.add_argument("rows", nargs="*", help="names of rows; none means all")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--table", action="store_true", help=f"write the table of {PAGE.name}")
    parser.add_argument("--trials", type=int, help="instead of each row's own number")
    parser.add_argument("--continue", dest="go_on", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    known = rows()
    if options.list:
        for row in known.values():
            print(f"{row.name:20} {row.trials:6} trials, {row.short} in the suite: {row.passes}")
        return 0
    if options.table:
        made = table(known, options.out)
        PAGE.write_text(put_table(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
        return 0
    unknown = [name for name in options.rows if name not in known]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; --list names them")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in options.rows or known:
        row, path = known[name], options.out / f"{name}.json"
        head = {
            "command": f"python bench/faults.py {name}",
            "machine": machine(*LIBRARIES),
            "passes": row.passes,
        }
        done = json.loads(path.read_text()) if options.go_on and path.exists() else {}

        def save(now: dict[str, Any], path: Path = path, head: dict[str, Any] = head) -> None:
            now = head | now | {"bound": bound(len(now["failures"]), now["trials"])}
            path.write_text(json.dumps(now, indent=1) + "\n")

        done = make(row, options.trials or row.trials, done, save)
        verdict = row.verdict(done["figures"]) if row.verdict and done.get("figures") else ""
        if done.get("trials"):
            save(done | {"verdict": verdict})
            print(report(row, done) + (f"; but {verdict}" if verdict else ""), flush=True)
        failed += bool(done.get("failures") or verdict)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
