"""Typed configuration of a run: presets, YAML in and out, errors that name the line.

The text under each field becomes its description in the cockpit and in the
documentation. A misspelt key is an error that suggests the nearest one.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import UserError
from engine.presets import EMBEDDED_MODEL, PRESETS
from engine.text import one_line

SCHEMA_VERSION = 1
"""Version of the run directory: configuration, store and checkpoints together."""


class Section(BaseModel):
    """One block of the configuration."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class ModelConfig(Section):
    """The base model and where it runs."""

    id: str = Field(EMBEDDED_MODEL, min_length=1)
    """`smollm2-135m` (needs no hub), a Hugging Face id, or a local folder."""
    quantize: Literal["auto", "nf4", "none"] = "auto"
    """4-bit NF4 base through bitsandbytes; `auto` takes 16-bit when it fits on the device."""
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the frozen base; the adapter is always fp32. `auto` takes bf16 where
    the device computes in it natively, else fp32. `fp16` is for GPUs without bf16; its loss is
    scaled, and an update that overflows is skipped."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass rather than keep them: the same gradients
    for less memory and more time."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""


class DataConfig(Section):
    """Where examples come from and how they are split by date."""

    source: str = "demo"
    """Source of market data: `demo` (the bundled daily series), `ohlcv:DIR` (a folder of price
    files), `stocknet:DIR` (prices and posts), `deepstock[:PATH_OR_HUB_ID]` (prices, news and
    financials), `planted[:share=0.9,seed=1]` (made up; with `shuffled=true` its twin in which
    nothing can be predicted)."""
    style: Literal["full", "compact", "brief", "masked"] = "compact"
    """What a prompt shows: `full` bars, indicators, statistics, news and financials, `compact` a
    few lines for a small model, `brief` the last close, changes and newest headline, `masked`
    neither names nor dates, prices rebased to 100."""
    window: int = Field(10, ge=5, le=60)
    """Trading days of prices in the prompt."""
    horizon: int = Field(1, ge=1, le=10)
    """Trading days from the as-of date to the outcome."""
    train_share: float = Field(0.7, gt=0, lt=1)
    """Share of the calendar, from its start, used for training."""
    validation_share: float = Field(0.15, gt=0, lt=1)
    """Share of the calendar after the training part; the rest is the test split."""
    embargo: int = Field(5, ge=1, le=60)
    """Trading days dropped at each border between splits; at least the horizon."""
    folds: int = Field(1, ge=1, le=50)
    """Walk-forward folds: equal blocks of the test part, each tested after training on what
    came before it. 1 is the plain split."""
    fold: int = Field(1, ge=1)
    """Which fold this run is, from 1."""
    train_window: Literal["expanding", "sliding"] = "expanding"
    """`expanding` trains on all days before the validation part, `sliding` on the newest
    train_share of the calendar; the same in the first fold."""
    market_share: bool = False
    """Tell the share of UP among the daily moves of all tickers over the last 60 trading days."""
    sampling: Literal["balanced", "natural"] = "balanced"
    """`balanced` draws as many UP as DOWN (Stage I), `natural` keeps the market's shares."""
    max_train_samples: int = Field(2000, ge=2)
    """Training examples in total, spread over tickers and time."""

    @model_validator(mode="after")
    def _shares_and_embargo(self) -> Self:
        if self.train_share + self.validation_share >= 1:
            raise ValueError("train_share + validation_share must be below 1")
        if self.embargo < self.horizon:
            raise ValueError("embargo must be at least the horizon")
        if self.fold > self.folds:
            raise ValueError(f"fold must be at most folds, {self.folds}")
        return self


class LoraSection(Section):
    """The adapter that is trained."""

    r: int = Field(16, ge=1, le=256)
    """Rank."""
    alpha: int = Field(32, ge=1)
    """Scale: the update is multiplied by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input, in training passes only."""
    targets: Literal["attention", "all-linear"] = "attention"
    """`attention` adapts q, k, v and o; `all-linear` the MLP too."""


class WarmupConfig(Section):
    """Supervised steps on templated answers whose direction is a coin flip."""

    steps: int = Field(24, ge=0)
    """0 leaves the warm-up out."""
    prompts_per_step: int = Field(2, ge=1)
    """Prompts in one step."""
    answers_per_prompt: int = Field(8, ge=1)
    """Templated answers to each prompt."""
    silent_share: float = Field(0.0, ge=0, le=1)
    """Share of them that state no confidence, as models do that nobody asked: what GRPO then finds
    out first is that stating one pays."""
    facts_cited: tuple[Annotated[int, Field(ge=0, le=8)], ...] = Field(
        (0, 1, 1, 1, 2, 2, 2, 3), min_length=1
    )
    """How many facts of its prompt an answer cites, one of these numbers drawn for each. Few leave
    room to learn that more pay; many make answers longer."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate; it rises over the first tenth and falls linearly to zero."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm; a mean over tokens makes them larger than GRPO's."""


class RolloutConfig(Section):
    """How completions are sampled."""

    prompts_per_step: int = Field(8, ge=1)
    """Groups in one step."""
    group_size: int = Field(8, ge=2, le=64)
    """Completions sampled per prompt. Two is the least that can give a non-zero advantage;
    decode memory grows in proportion."""
    max_new_tokens: int = Field(256, ge=8, le=4096)
    """Longest completion; one that reaches it is cut and counted as truncated."""
    temperature: float = Field(1.0, gt=0, le=5)
    """Divides the logits in sampling and in the log-probabilities of the loss alike."""
    context: int = Field(2048, ge=128)
    """Tokens that prompt and completion may take together."""


class ObjectiveConfig(Section):
    """The GRPO loss; the defaults are `dr_grpo`: centred advantages, constant normaliser."""

    normalisation: Literal["dr_grpo", "grpo", "dapo"] = "dr_grpo"
    """What the terms of all tokens are divided by: `dr_grpo` a constant, completions times
    rollout.max_new_tokens; `grpo` each completion's own length, then the number of completions;
    `dapo` the number of tokens in the step."""
    advantage_scaling: Literal["none", "group", "batch"] = "none"
    """Centred rewards are divided by the standard deviation of the rewards of their own `group`,
    of the whole `batch`, or not at all (`none`). By group spoils the properness of the confidence
    score."""
    ratio: Literal["token", "sequence"] = "token"
    """Probability ratio of each token, or of the completion as a whole (GSPO, which needs a much
    smaller clip: 0.0003 in its paper, and normalisation `grpo`)."""
    clip: float = Field(0.2, gt=0, lt=1)
    """The probability ratio is clipped to 1 ± clip."""
    clip_high: float | None = Field(None, gt=0)
    """Clip upwards to 1 + clip_high instead (DAPO: 0.28); left out: clip."""
    dual_clip: float | None = Field(None, gt=1)
    """Greatest ratio that counts where the advantage is negative, above the upper clip; left out:
    there is none."""
    importance_cap: float | None = Field(None, ge=1)
    """Weigh each token by its probability in training over that in sampling, at most this much
    (TRL: 3), which corrects for the rounding between the two; left out: no weight."""
    mask_truncated: bool = False
    """Leave completions that were cut at rollout.max_new_tokens out of the loss; their rewards
    still count in their group's mean."""
    kl_coefficient: float = Field(0.15, ge=0)
    """Weight of the KL divergence to the reference policy."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """How that divergence is estimated: `k3` or `k2` as a term of the loss, `k1` subtracted from
    the reward, where alone it has an effect."""
    iterations: int = Field(1, ge=1, le=16)
    """Optimiser steps on each block of rollouts. At 1 all ratios are 1 and nothing is clipped."""
    kl_alarm: float = Field(1.0, gt=0)
    """KL divergence in nats a token above which an alarm is raised."""

    @property
    def upper_clip(self) -> float:
        """How far above 1 the ratio is clipped."""
        return self.clip if self.clip_high is None else self.clip_high

    @model_validator(mode="after")
    def _dual_clip_above_the_upper_clip(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.upper_clip:
            raise ValueError(f"dual_clip must be above the upper clip, {1 + self.upper_clip:g}")
        return self


class OptimizerConfig(Section):
    """AdamW."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate, constant once it is reached."""
    rise_steps: int = Field(5, ge=1)
    """GRPO steps over which the learning rate rises linearly to its peak. AdamW's first update
    moves every weight by the whole rate, whatever the gradient; 1 allows that."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    micro_batch_tokens: int = Field(8192, ge=256)
    """Most tokens in one forward and backward pass; halved where memory does not suffice. A group
    that is longer goes in parts, its prompt computed again for each."""


class FrozenScheme(Section):
    """What a scheme stood for when the run was created."""

    scheme: str
    """The `reward.scheme` that this was."""
    weights: dict[str, float]
    """Weight of every component."""
    thresholds: dict[str, float | tuple[float, ...]]
    """Every threshold of the components."""


class RewardConfig(Section):
    """How components become one number."""

    scheme: str = Field("stage1", min_length=1)
    """Set of weights and thresholds: `stage1`, `stage2`, `rubric`, or a YAML file of your own."""
    components: tuple[str, ...] = ()
    """Components of your own: `FILE.py:FUNCTION`, or the name of an entry point; they are code, so
    the command line has to say `--allow-code`."""
    frozen: FrozenScheme | None = None
    """What `scheme` stood for when the run was created, filled in by the program, so that a file
    that changes later changes no run."""
    shaping: Literal["diversity", "market_skew", "none"] = "diversity"
    """What the rewards of training depend on beyond the completion: `diversity` pays a side that is
    called too often less (Stage I), `market_skew` pays the rarer side more (Stage II)."""


class MilestonesConfig(Section):
    """When the four indicators light up."""

    settle_window: int | None = Field(None, ge=5)
    """Steps without a trend that the `settled` indicator asks for; left out: two epochs."""


class ScheduleConfig(Section):
    """How long, how often."""

    max_steps: int | None = Field(None, ge=1)
    """GRPO steps; left out: `epochs` over the training examples."""
    epochs: int = Field(5, ge=1)
    """Passes over the training examples where max_steps is left out."""
    save_every: int = Field(100, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(3, ge=2)
    """Newest checkpoints kept, besides the best one."""
    eval_every: int = Field(50, ge=1)
    """Steps between validations."""
    eval_samples: int = Field(200, ge=1)
    """Validation examples, fixed by the seed, natural distribution."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations in a row without a better validation reward; left out:
    never."""
    max_hours: float | None = Field(None, gt=0)
    """Stop with a checkpoint after this many hours."""
    hang_seconds: float = Field(120.0, gt=0)
    """Shortest silence of the training loop that counts as a hang; five times what is usual in
    the phase where that is longer."""
    on_hang: Literal["notify", "restart"] = "notify"
    """What a hang leads to: `notify` saves the stacks and raises an alarm, `restart` then begins
    anew from the last checkpoint, at most three times."""
    grace_seconds: float = Field(30.0, gt=0)
    """A worker that is told to end (SIGTERM) saves a checkpoint and is gone within this time."""


class RunConfig(Section):
    """Everything that decides what a run does."""

    name: str = Field("stage1", pattern=r"^[A-Za-z0-9._-]{1,48}$")
    """Short name, part of the run id."""
    stage: Literal["I", "II"] = "I"
    """Stage of training; `II` trains a second adapter on top of a promoted Stage I policy."""
    seed: int = Field(7, ge=0, lt=2**31)
    """Seed of sampling, data order, adapter initialisation and validation sample."""
    deterministic: bool = False
    """Take the very same steps whenever the run is repeated or resumed on the same machine: torch
    uses algorithms alone that give the same result twice, which may take longer."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    lora: LoraSection = LoraSection()
    warmup: WarmupConfig = WarmupConfig()
    rollout: RolloutConfig = RolloutConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    reward: RewardConfig = RewardConfig()
    milestones: MilestonesConfig = MilestonesConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    @model_validator(mode="after")
    def _completion_fits(self) -> Self:
        if self.rollout.max_new_tokens >= self.rollout.context:
            raise ValueError("rollout.max_new_tokens must be below rollout.context")
        return self

    @model_validator(mode="after")
    def _no_warmup_in_stage2(self) -> Self:
        if self.stage == "II" and self.warmup.steps > 0:
            raise ValueError(
                "warmup.steps must be 0 in Stage II: its reference policy is Stage I's"
            )
        return self

    def max_steps(self, num_training_items: int) -> int:
        """GRPO steps of the whole run."""
        if self.schedule.max_steps is not None:
            return self.schedule.max_steps
        per_epoch = -(-num_training_items // self.rollout.prompts_per_step)
        return self.schedule.epochs * per_epoch

    def to_yaml(self) -> str:
        """The whole configuration, defaults included, as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def preset(name: str) -> RunConfig:
    """The configuration called ``name``.

    Raises:
        UserError: there is no such preset.
    """
    return build(_preset_values(name), where=f"preset {name}")


def load(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML configuration and apply ``key.path=value`` overrides.

    A top-level ``preset: NAME`` names the values to start from.

    Raises:
        UserError: unreadable file, bad YAML, unknown key or value out of range; the message
            names file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UserError(
            f"cannot read the configuration: {reason}", where=one_line(str(path))
        ) from error
    return parse(text, where=one_line(str(path)), overrides=overrides)


def parse(text: str, *, where: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Parse YAML ``text``; see ``load``."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"not valid YAML: {error.problem}", where=f"{where}:{line}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"not valid YAML: {one_line(str(error))}", where=where) from error
    if root is None:
        # A file that was cut off would else start what every default stands for.
        raise UserError("the configuration is empty", where=where, fix="write `preset: stage1`")
    if not isinstance(values, dict):
        raise UserError("a configuration is a mapping of keys to values", where=f"{where}:1")
    name = values.pop("preset", None)
    start = _preset_values(name) if name is not None else {}
    return build(_merge(start, values), where=where, node=root, overrides=overrides)


def build(
    values: dict[str, Any],
    *,
    where: str,
    node: yaml.Node | None = None,
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Validate ``values`` with ``overrides`` on top.

    Raises:
        UserError: with the line of ``node`` where it holds the offending key.
    """
    overridden: dict[tuple[str, ...], str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        overridden[keys] = override
        values = _merge(values, _nest(keys, value))
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = tuple(str(key) for key in first["loc"])
        dotted = ".".join(keys)
        line = line_of(node, keys)
        by = _override_of(keys, overridden, is_in_file=line is not None)
        if by is not None:
            place = f"--set {one_line(by)}"
        else:
            place = f"{where}:{line}:{dotted}" if line else f"{where}:{dotted}" if dotted else where
        raise UserError(_explain(first, keys), where=place) from error


def _override_of(
    keys: tuple[str, ...], overridden: dict[tuple[str, ...], str], *, is_in_file: bool
) -> str | None:
    """The ``--set`` that put a wrong value at ``keys``: there, above, or alone inside of it."""
    for given, text in overridden.items():
        is_inside = bool(keys) and given[: len(keys)] == keys and not is_in_file
        if keys[: len(given)] == given or is_inside:
            return text
    return None


def with_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """``config`` with ``key.path=value`` overrides applied."""
    return build(config.model_dump(), where="configuration", overrides=overrides)


def with_changes(config: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """``config`` with ``changes``, sections nested as in a file, merged in."""
    return build(_merge(config.model_dump(), changes), where="configuration")


def _preset_values(name: object) -> dict[str, Any]:
    if not isinstance(name, str) or name not in PRESETS:
        known = ", ".join(sorted(PRESETS))
        raise UserError(f"no preset called {one_line(str(name))!r}", fix=f"use one of: {known}")
    return PRESETS[name]


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = (
            _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged


def _nest(keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def _parse_override(override: str) -> tuple[tuple[str, ...], Any]:
    key, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    if not equals or not all(keys):
        raise UserError(
            f"{one_line(override)!r} is not key=value",
            where="--set",
            fix="write it like --set rollout.group_size=8",
        )
    try:
        return keys, yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            "the value is not valid YAML", where=f"--set {one_line(override)}"
        ) from error


def line_of(node: yaml.Node | None, keys: tuple[str, ...]) -> int | None:
    """Line (from 1) of the deepest key of ``keys`` that ``node`` holds."""
    line: int | None = None
    for key in keys:
        if not isinstance(node, yaml.MappingNode):
            break
        for key_node, value_node in node.value:
            if key_node.value == key:
                line, node = key_node.start_mark.line + 1, value_node
                break
        else:
            break
    return line


_TRUNCATIONS = ("top_p", "top_k", "min_p", "repetition_penalty")
_NO_TRUNCATION = (
    "sampling has a temperature and nothing else: the loss needs the log-probability of every "
    "token in the distribution that it was drawn from, where this gives some of them none; leave "
    "it out, or lower rollout.temperature"
)


def _explain(error: Any, keys: tuple[str, ...]) -> str:
    kind, message = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        if keys[0] == "rollout" and keys[-1] in _TRUNCATIONS:
            return _NO_TRUNCATION
        near = difflib.get_close_matches(keys[-1], _siblings(keys), n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(_siblings(keys))}"
        return f"unknown key {one_line(keys[-1], 40)!r}{hint}"
    given = one_line(str(error.get("input")), 60)
    message = message[:1].lower() + message[1:]
    return message if kind == "value_error" else f"{message}, not {given!r}"


def _siblings(keys: tuple[str, ...]) -> list[str]:
    section: type[BaseModel] = RunConfig
    for key in keys[:-1]:
        field = section.model_fields.get(key)
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        section = annotation
    names = list(section.model_fields)
    return [*names, "preset"] if section is RunConfig else names
