"""Imports between packages run one way, the cockpit stays light, nothing runs foreign code."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = sorted((ROOT / "engine").rglob("*.py"))
COCKPIT = sorted((ROOT / "stonk_tui").rglob("*.py"))

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "bitsandbytes",
    "accelerate",
    "pandas",
    "talib",
)
"""Take seconds or hundreds of megabytes to import: never in the cockpit's process."""

LIGHT_ENGINE = [
    "engine.config",
    "engine.errors",
    "engine.text",
    "engine.task",
    "engine.runs",
    "engine.policy.embedded",
]
"""Parts of the engine that the cockpit imports; packages are taken with all their modules."""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of every import in a file, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


def heavy_modules_after(statement: str) -> list[str]:
    """Run ``statement`` in a fresh interpreter; returns the heavy packages it loaded."""
    code = f"{statement}\nimport sys\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.parametrize("path", ENGINE, ids=relative)
def test_engine_never_imports_the_user_interface(path: Path) -> None:
    for line, name in imported_names(path):
        package = name.partition(".")[0]
        assert package not in {"textual", "rich", "stonk_tui", "typer"}, f"{path}:{line}: {name}"


@pytest.mark.parametrize("path", COCKPIT, ids=relative)
def test_cockpit_never_imports_the_heavy_libraries_itself(path: Path) -> None:
    for line, name in imported_names(path):
        assert name.partition(".")[0] not in HEAVY, f"{path}:{line}: {name}"


def test_opening_the_cockpit_loads_no_heavy_library() -> None:
    assert heavy_modules_after("import stonk_tui.cli, stonk_tui.app") == []


def test_every_cockpit_module_loads_without_a_heavy_library() -> None:
    names = [module_name(path) for path in COCKPIT if path.name != "__main__.py"]
    assert heavy_modules_after(f"import {', '.join(names)}") == []


def test_light_parts_of_the_engine_load_no_heavy_library() -> None:
    names = [
        module_name(path)
        for path in ENGINE
        if any(f"{module_name(path)}.".startswith(f"{light}.") for light in LIGHT_ENGINE)
    ]
    assert set(LIGHT_ENGINE) <= set(names)
    assert heavy_modules_after(f"import {', '.join(names)}") == []


def test_every_module_can_be_found() -> None:
    """A folder without ``__init__.py`` would be left out of an installation."""
    for path in [*ENGINE, *COCKPIT]:
        for parent in path.relative_to(ROOT).parents[:-1]:
            assert (ROOT / parent / "__init__.py").exists(), parent
    assert importlib.util.find_spec("engine") is not None


def test_stores_are_opened_by_one_writer_and_one_reader_alone() -> None:
    """More than one connection that writes is how SQLite's WAL-reset bug damages a database."""
    opening = {
        relative(path)
        for path in [*ENGINE, *COCKPIT]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and dotted(node.func) in ("sqlite3.connect", "EventStore")
    }
    assert opening == {
        "engine/runs/store.py",
        "engine/runs/reader.py",
        "engine/worker.py",
        "engine/service.py",
        # A run of its own that is thrown away.
        "engine/selftest.py",
        # The predictions of an evaluation: another database, with a rollback journal.
        "engine/evaluation/store.py",
        "engine/evaluation/table.py",
    }


FORBIDDEN_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "__import__": "imports what text names",
    "os.system": "runs a shell",
    "os.popen": "runs a shell",
    "subprocess.getoutput": "runs a shell",
    "subprocess.getstatusoutput": "runs a shell",
    "torch.load": "reads pickles",
    "torch.save": "writes pickles",
    "yaml.load": "can build any object; use yaml.safe_load",
    "yaml.unsafe_load": "can build any object",
}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a call's function, or an empty string where it is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        prefix = dotted(node.value)
        return f"{prefix}.{node.attr}" if prefix else ""
    return ""


def unsafe_uses(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in FORBIDDEN_CALLS:
                yield node.lineno, f"{name} {FORBIDDEN_CALLS[name]}"
            for keyword in node.keywords:
                if keyword.arg in {"shell", "trust_remote_code", "allow_pickle"} and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield node.lineno, f"{keyword.arg} is not False"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in FORBIDDEN_IMPORTS:
                    yield node.lineno, f"imports {alias.name}"
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.partition(".")[0] in FORBIDDEN_IMPORTS:
                yield node.lineno, f"imports {module}"
            for alias in node.names:
                if f"{module}.{alias.name}" in FORBIDDEN_CALLS:
                    yield node.lineno, f"imports {module}.{alias.name}"


@pytest.mark.parametrize("path", [*ENGINE, *COCKPIT], ids=relative)
def test_nothing_unpickles_evaluates_or_starts_a_shell(path: Path) -> None:
    uses = list(unsafe_uses(path.read_text(encoding="utf-8")))
    assert not uses, [f"{relative(path)}:{line}: {what}" for line, what in uses]


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "import pickle",
        "from pickle import loads",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "f(trust_remote_code=True)",
        "f(trust_remote_code=flag)",
        "import yaml\nyaml.load(text)",
    ],
)
def test_the_search_for_unsafe_uses_finds_them(source: str) -> None:
    assert list(unsafe_uses(source))


def test_the_search_for_unsafe_uses_leaves_safe_code_alone() -> None:
    source = "model.eval()\nf(trust_remote_code=False)\nimport yaml\nyaml.safe_load(text)"
    assert not list(unsafe_uses(source))
