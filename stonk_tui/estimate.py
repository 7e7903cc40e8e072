"""Memory and time of a step before a run is started, and where the figures come from.

The best that can be known is what an earlier run on this machine measured. Without one, the
weights' size follows from the number of parameters; how long a step takes does not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.config import RunConfig
from engine.runs.directory import RunDirectory
from stonk_tui.doctor import model
from stonk_tui.run_list import Listed

_SIZES = (
    "model.quantize",
    "model.dtype",
    "data.style",
    "data.window",
    "lora.r",
    "lora.targets",
    "rollout.prompts_per_step",
    "rollout.group_size",
    "rollout.max_new_tokens",
    "rollout.context",
    "optimizer.micro_batch_tokens",
)
"""What decides how much work a step is, on one model and one device."""

_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


@dataclass(frozen=True)
class Estimate:
    """Figures and their origin; one that is not known is None."""

    seconds: float | None = None
    """Of a step."""
    memory_gib: float | None = None
    run: RunDirectory | None = None
    """The earlier run that measured them."""
    differs: tuple[str, ...] = ()
    """Settings that were others there and matter for both figures."""
    weights_gib: float | None = None
    """Of the base model's weights alone, where nothing was measured."""
    parameters: int | None = None
    bytes_each: float | None = None
    origin: str = ""
    """Where the number of parameters comes from."""


def estimate(config: RunConfig, device: str, earlier: Sequence[Listed]) -> Estimate:
    """What is known of a step of ``config`` before its first one.

    Args:
        config: of the run to be started.
        device: what its ``model.device`` stands for, ``cpu`` or ``cuda:N``.
        earlier: all runs of this machine; the newest of those that fit best counts.
    """
    kind = device.partition(":")[0]
    best: tuple[tuple[str, ...], Listed] | None = None
    for item in sorted(earlier, key=lambda one: one.run.id, reverse=True):
        then, summary = item.config, item.summary
        if then is None or then.model.id != config.model.id or summary.step_seconds is None:
            continue
        if (summary.device or then.model.device).partition(":")[0] != kind:
            continue
        differs = tuple(key for key in _SIZES if _value(then, key) != _value(config, key))
        if best is None or len(differs) < len(best[0]):
            best = (differs, item)
    if best is not None:
        differs, item = best
        return Estimate(
            seconds=item.summary.step_seconds,
            memory_gib=item.summary.memory_gib,
            run=item.run,
            differs=differs,
        )
    parameters, origin = count_parameters(config.model.id)
    if parameters is None:
        return Estimate()
    each = _bytes_each(config, kind)
    return Estimate(
        weights_gib=parameters * each / 2**30,
        parameters=parameters,
        bytes_each=each,
        origin=origin,
    )


def count_parameters(model_id: str) -> tuple[int | None, str]:
    """(number of parameters, where that is known from), without asking the hub."""
    for folder in _folders(model_id):
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return model.parameters_of_config(config), f"its config.json in {folder}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    known = model.KNOWN_PARAMETERS.get(model_id)
    return known, "the model's known size" if known else ""


def _folders(model_id: str) -> list[Path]:
    """Where the configuration of the model may lie on this machine."""
    folder = Path(model_id).expanduser()
    if folder.is_dir():
        return [folder]
    if "/" not in model_id or model_id.startswith(("/", ".", "~")):
        return []
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / f"models--{model_id.replace('/', '--')}" / "snapshots"
    return sorted(cache.glob("*"))


def _bytes_each(config: RunConfig, kind: str) -> float:
    """Bytes of a weight. ``auto`` counts as 16 bits on a GPU; on a CPU as the most it can take."""
    if config.model.quantize == "nf4":
        return 0.6
    return _BYTES.get(config.model.dtype, 2 if kind == "cuda" else 4)


def _value(config: RunConfig, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
