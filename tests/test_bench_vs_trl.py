"""The comparison with TRL: both sides still play it, and unequal work is refused."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Modules of the bench by name."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("STONK_CACHE", str(tmp_path / "cache"))
    return importlib.import_module


def _match(bench: Any, folder: Path) -> Any:
    return bench("match").Match(
        folder=str(folder),
        device="cpu",
        dtype="fp32",
        quantize="none",
        prompt_tokens=16,
        group_size=2,
        completion_tokens=8,
        prompts_per_step=2,
        groups_per_batch=1,
        steps=1,
    )


def test_both_sides_work_on_the_same_tokens(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vs_trl = bench("vs_trl")
    sides = {"ours": bench("match_engine"), "trl": bench("match_trl")}
    monkeypatch.setattr(vs_trl, "_play", lambda name, match: sides[name].play(match))
    figures = vs_trl._compare(_match(bench, bench("models").model_folder("tiny")), turns=1)
    # 2 prompts: 2 * 2 * (16 + 8) and 2 * (16 + 2 * 8)
    assert figures["tokens_of_a_pass"] == {"padded": 96, "packed": 64}
    for side in sides:
        phases = figures[side]["phase_seconds"]
        assert phases["rollout"] > 0
        assert phases["train"] > 0
        assert sum(phases.values()) == pytest.approx(figures[side]["step_seconds"], rel=0.1)
    assert figures["trl_by_ours"]["step_seconds"] > 0


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": "others"},
        {"prompt_tokens": 31},
        {"completion_tokens": 31},
    ],
)
def test_unequal_work_is_refused(bench: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    match, vs_trl = bench("match"), bench("vs_trl")
    prompts = [[1] * 16, [2] * 16]
    step = match.make_step(1.0, {}, prompts, 2 * 2 * 8)
    outcome = match.Outcome([step, step], 7, 1, 1.0, None)
    changed = [step, dataclasses.replace(step, **change)]
    outcomes = {"ours": [outcome], "trl": [outcome]}
    vs_trl._refuse_unequal_work(_match(bench, tmp_path), outcomes)
    outcomes["trl"] = [dataclasses.replace(outcome, steps=changed)]
    with pytest.raises(SystemExit):
        vs_trl._refuse_unequal_work(_match(bench, tmp_path), outcomes)
