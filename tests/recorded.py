"""A recorded run: what a worker would have written, made up but true to form.

Written through the engine's own store, so that whoever reads it meets exactly what a
real run leaves behind. The same arguments give the same run, to the last byte that
is shown.
"""

import datetime as dt
import json
import math
import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine import config as configuration
from engine.probe.tally import tally
from engine.runs import checkpoint_names, directory, manifest, promotion
from engine.runs.directory import RunDirectory
from engine.runs.durable import write_atomically
from engine.runs.store import EventStore, RolloutRecord
from engine.task import ComponentScore, Json

START = 1_763_600_000.0
"""Moment of the first event: 2025-11-20 00:53:20 UTC."""
STEP_SECONDS = 14.0
WEIGHTS: dict[str, float] = {
    "format": 0.20,
    "direction": 0.35,
    "magnitude": 0.20,
    "confidence": 0.10,
    "data_use": 0.15,
    "coherence": 0.0,
}
TICKERS = ("AAPL", "GOOG", "IBM", "MSFT", "FB")


@dataclass
class Recording:
    """Write one run, piece by piece."""

    run: RunDirectory
    max_steps: int = 500
    seed: int = 11
    stage: str = "I"
    store: EventStore = field(init=False)
    step: int = 0
    has_validated: bool = False

    def __post_init__(self) -> None:
        self.store = EventStore(self.run.database)
        self.random = random.Random(self.seed)

    # --- what happens in a run, in its order

    def starts(self, *, device: str = "cpu", device_name: str = "AMD EPYC 9454") -> None:
        self.store.event(
            "worker",
            {
                "pid": 4242,
                "host": "box",
                "device": device,
                "device_name": device_name,
                "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
            },
        )
        self.state("starting", "loading the model")

    def is_loaded(self) -> None:
        self.store.event(
            "worker",
            {
                "model": "smollm2-135m",
                "dtype": "fp32",
                "num_parameters": 134_515_008,
                "num_trainable": 4_884_480,
                "max_steps": self.max_steps,
                "num_training_items": 2000,
                "num_validation_items": 200,
                "weights": dict(WEIGHTS),
            },
        )

    def state(self, name: str, detail: str = "") -> None:
        self.store.event("state", {"state": name, "detail": detail})

    def progress(
        self,
        task: str,
        done: float,
        total: float,
        *,
        detail: str = "",
        eta_seconds: float | None = None,
        loss: float | None = None,
    ) -> None:
        payload: dict[str, Json] = {"task": task, "done": done, "total": total, "detail": detail}
        if eta_seconds is not None:
            payload["eta_seconds"] = eta_seconds
        if loss is not None:
            payload["metrics"] = {"loss": loss}
        self.store.event("progress", payload)

    def warms_up(self, steps: int = 24, of: int = 24) -> None:
        self.state("warming_up", "teaching the answer format")
        for step in range(1, steps + 1):
            loss = 2.3 * math.exp(-step / 6) + 0.18 + self.random.uniform(-0.04, 0.04)
            self.progress("warm-up", step, of, eta_seconds=(of - step) * 2.1, loss=loss)

    def trains(self, steps: int, *, rollouts: bool = True, every: int = 50) -> None:
        """Run ``steps`` GRPO steps with validations and checkpoints every ``every``."""
        for _ in range(steps):
            self.step += 1
            records = self._rollouts(self.step)
            if rollouts:
                self.store.rollouts(self.step, records)
            self.store.event("step", self._step_payload(records), step=self.step)
            if self.step % every == 0:
                self.validates()
                self.keeps_a_checkpoint()

    def validates(self) -> None:
        progress = self.step / (self.step + 90)
        accuracy = self._accuracy = 0.50 + 0.07 * progress
        self.has_validated = True
        self.store.event(
            "validation",
            {
                "metrics": {
                    "accuracy": accuracy,
                    "accuracy/low": accuracy - 0.07,
                    "accuracy/high": accuracy + 0.07,
                    "accuracy/n": 200,
                    "accuracy/days": 96,
                    "accuracy/day_low": accuracy - 0.09,
                    "accuracy/day_high": accuracy + 0.09,
                    **_side("up", accuracy + 0.05, 200),
                    **_side("down", accuracy - 0.06, 200),
                    "accuracy/balanced": accuracy - 0.005,
                    "auc": accuracy + 0.01,
                    "brier": 0.274 - 0.02 * progress,
                    "brier/base_rate": 0.248,
                    "brier/skill": 1 - (0.274 - 0.02 * progress) / 0.248,
                    "ece": 0.17 - 0.08 * progress,
                    "baseline/always_up": 0.535,
                    "baseline/always_down": 0.465,
                    "baseline/momentum": 0.49,
                    "baseline/base_model": 0.11,
                    "baseline/base_model_parsed": 0.22,
                    "reward/total": 0.34 + 0.26 * progress,
                    "rubric/total": 0.40 + 0.2 * progress,
                    "rubric/reasoning": 0.18 + 0.2 * progress,
                },
                "milestones": self._milestones(),
                "power": self._power(),
            },
            step=self.step,
        )

    def raises(
        self,
        name: str = "overconfident",
        title: str = "states 72 %, right 51 %",
        *,
        value: float = 0.21,
        threshold: float = 0.15,
    ) -> None:
        """An alarm comes on."""
        self.store.event(
            "alarm",
            {
                "name": name,
                "on": True,
                "title": title,
                "explanation": "Over the last steps the policy stated a higher confidence than "
                "came true. The confidence component charges for this, but slowly.",
                "advice": "Wait for two more validations. If the gap stays, raise the weight of "
                "confidence with --set reward.weights.confidence=0.2 in a new run.",
                "value": value,
                "threshold": threshold,
            },
            step=self.step,
        )

    def calms(self, name: str, title: str = "as sure as it is right again") -> None:
        """An alarm goes off."""
        off = {"name": name, "on": False, "title": title, "explanation": "", "advice": ""}
        self.store.event("alarm", {**off, "value": None, "threshold": None}, step=self.step)

    def sets(self, name: str, old: Json, new: Json, *, by: str = "user") -> None:
        """A setting changes between two steps."""
        changes: list[Json] = [{"name": name, "old": old, "new": new}]
        self.store.event(
            "settings", {"changes": changes, "by": by, "command": "one"}, step=self.step
        )

    def lights_all(self, power: int = 9001) -> None:
        """One more validation, after which all four indicators are on."""
        indicators: list[Json] = [
            _indicator("reward", 0.74, 0.7, streak=12, needed=10),
            _indicator("accuracy", 0.86, 0.8, streak=2, needed=2),
            _indicator("reasoning", 0.35, 0.3, streak=3, needed=1),
            _indicator("settled", 1.1, 2.0, streak=1, needed=1),
        ]
        figures = {
            "accuracy": 0.86,
            "accuracy/low": 0.81,
            "accuracy/high": 0.90,
            "accuracy/n": 200,
            "accuracy/day_low": 0.79,
            "accuracy/day_high": 0.92,
            "baseline/always_up": 0.535,
            "reward/total": 0.71,
            "rubric/reasoning": 0.35,
        }
        self.store.event(
            "validation",
            {"metrics": figures, "milestones": indicators, "power": power},
            step=self.step,
        )
        self.store.event(
            "super_saiyan",
            {
                "power": power,
                "step": self.step,
                "suggestion": f"step-{self.step:06d}",
                "indicators": indicators,
            },
            step=self.step,
        )

    def keeps_a_checkpoint(self) -> None:
        name = f"step-{self.step:06d}"
        reward = 0.34 + 0.26 * self.step / (self.step + 90)
        _write_checkpoint(self.run.checkpoints / name)
        write_atomically(self.run.path / "best_model", name)
        self.store.event(
            "checkpoint",
            {"name": name, "best": True, "validation_reward": reward, "removed": []},
            step=self.step,
        )

    def is_asked(self, number: int = 1, *, known: bool = True) -> None:
        """A probe of two checkpoints was answered."""
        actual: Json = {"direction": "UP", "percent": 1.23} if known else None
        answers: list[Json] = [
            _probed(checkpoint, self.run.id, sides, known=known)
            for checkpoint, sides in (
                ("base", ("UP", None, "DOWN", None)),
                (f"step-{self.step:06d}", ("UP", "UP", "DOWN", "UP")),
            )
        ]
        self.store.event(
            "probe",
            {
                "id": f"probe-{number}",
                "example": {
                    "source": "demo",
                    "ticker": "AAPL",
                    "as_of": "2012-09-14",
                    "horizon": 1,
                    "style": "compact",
                    "actual": actual,
                },
                "samples": 4,
                "temperature": 1.0,
                "seed": number,
                "seconds": 3.2,
                "answers": answers,
            },
        )

    def closes(self) -> RunDirectory:
        """Finish writing; times become even ones, the same in every recording."""
        self.store.close()
        connection = sqlite3.connect(self.run.database)
        with connection:
            connection.execute("UPDATE events SET time = ? + seq * ?", (START, STEP_SECONDS))
        connection.close()
        return self.run

    @property
    def now(self) -> float:
        """A moment shortly after the last event of this recording."""
        connection = sqlite3.connect(self.run.database)
        (last,) = connection.execute("SELECT max(time) FROM events").fetchone()
        connection.close()
        return float(last) + 5

    # --- made-up content

    def _step_payload(self, records: list[RolloutRecord]) -> dict[str, Json]:
        progress = self.step / (self.step + 60)
        parts = {
            name: sum(_value(record, name) for record in records) / len(records) for name in WEIGHTS
        }
        rewards = [record.reward for record in records]
        mean = sum(rewards) / len(rewards)
        deviation = math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards))
        calls = [record.prediction.get("direction") for record in records]
        right = [
            call == record.subject["actual_direction"]
            for call, record in zip(calls, records, strict=True)
        ]
        accuracy, total = sum(right) / len(right), len(right)
        half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / total) + 0.01
        wave = math.sin(self.step / 7)
        metrics: dict[str, Json] = {
            "reward/total": mean,
            "reward/std": deviation,
            **{f"reward/{name}": value for name, value in parts.items()},
            "rubric/total": 0.38 + 0.24 * progress + 0.02 * wave,
            "rubric/prediction": 0.20 + 0.12 * progress,
            "rubric/reasoning": 0.18 + 0.12 * progress,
            "calls/up_share": calls.count("UP") / total,
            "market/up_share": 0.53,
            **self._shaping(),
            "accuracy": accuracy,
            "accuracy/low": max(0.0, accuracy - half),
            "accuracy/high": min(1.0, accuracy + half),
            "accuracy/n": total,
            **_side("up", min(1.0, accuracy + 0.04), total),
            **_side("down", max(0.0, accuracy - 0.05), total),
            "parsed": 0.9 + 0.1 * progress,
            "confidence/mean": 0.71 - 0.09 * progress,
            "confidence/hit_rate": accuracy,
            "brier": 0.291 - 0.05 * progress,
            "brier/base_rate": 0.249,
            "baseline/always_up": 0.53,
            "baseline/momentum": 0.49,
            "kl": 0.0002 + 0.025 * progress + 0.002 * wave,
            "loss": -0.004 + 0.003 * wave,
            "entropy": 2.1 - 0.5 * progress + 0.05 * wave,
            "gradient_norm": 0.45 + 0.1 * wave,
            "clip_fraction": 0.01,
            "mismatch_kl": 0.0004,
            "learning_rate": 1e-5,
            "groups/zero_variance": 0.125,
            "tokens/mean": 74.0 + 5 * wave,
            "tokens/truncated": 0.03,
            "tokens_per_second": 1840 + 60 * wave,
            "memory_gib": 3.4,
        }
        return {
            "metrics": metrics,
            "seconds": {
                "rollout": 8.4 + wave,
                "reward": 0.1,
                "reference": 1.3,
                "train": 4.1,
                "total": 13.9 + wave,
            },
            "epoch": self.step * 8 / 2000,
            "eta_seconds": (self.max_steps - self.step) * STEP_SECONDS,
            "milestones": self._milestones(),
            "power": self._power(),
        }

    def _shaping(self) -> dict[str, Json]:
        """Shares over the last calls, and what follows for the reward."""
        shares: dict[str, Json] = {
            "calls/window_up_share": 0.64,
            "calls/window_n": float(min(200, 32 * self.step)),
            "market/window_up_share": 0.51,
        }
        shares["shaping/up_factor"] = self._up_factor
        if self.stage == "II":
            return shares | {"shaping/market_up_share": 0.535, "shaping/down_factor": 1.075}
        crowding: dict[str, Json] = {"shaping/crowding": 0.13} if self._up_factor < 1 else {}
        return shares | crowding | {"shaping/down_factor": 1.0}

    @property
    def _up_factor(self) -> float:
        """What a right call of UP is multiplied by; the diversity penalty needs 100 calls."""
        if self.stage == "II":
            return 0.935
        return 0.91 if self.step >= 4 else 1.0

    def _power(self) -> int:
        return round(8200 * self.step / (self.step + 60))

    def _milestones(self) -> list[Json]:
        progress = self.step / (self.step + 60)
        reasoning = 0.18 + 0.2 * progress
        trend = 3.6 - 0.01 * self.step if self.step >= 15 else None
        is_settled = trend is not None and trend < 2
        accuracy = self._accuracy if self.has_validated else None
        return [
            _indicator(
                "reward",
                0.38 + 0.24 * progress if self.step else None,
                0.7,
                needed=10,
                why="the newest batch is below 0.70" if self.step else "no step yet",
            ),
            _indicator(
                "accuracy",
                accuracy,
                0.8,
                needed=2,
                why="54 % is not above 80 %" if accuracy else "no validation yet",
            ),
            _indicator(
                "reasoning",
                reasoning,
                0.3,
                streak=int(reasoning >= 0.3),
                needed=1,
                why="" if reasoning >= 0.3 else "0.28 is below 0.30",
            ),
            _indicator(
                "settled",
                trend,
                2.0,
                streak=int(is_settled),
                needed=1,
                why="" if is_settled else "the loss still falls",
            ),
        ]

    def _rollouts(self, step: int, groups: int = 4, samples: int = 8) -> list[RolloutRecord]:
        records = []
        progress = step / (step + 60)
        for group in range(groups):
            subject, prompt = _example(self.random)
            rewards, drafts = [], []
            for _ in range(samples):
                drafts.append(_answer(self.random, subject, progress, self._up_factor))
                rewards.append(sum(part.contribution for part in drafts[-1][2]))
            mean = sum(rewards) / samples
            for sample, (completion, prediction, components, cited) in enumerate(drafts):
                records.append(
                    RolloutRecord(
                        group=group,
                        sample=sample,
                        prompt=prompt,
                        subject=subject,
                        completion=completion,
                        tokens=len(completion) // 4,
                        finished=True,
                        reward=rewards[sample],
                        advantage=rewards[sample] - mean,
                        prediction=prediction,
                        components=components,
                        cited=cited,
                    )
                )
        return records


def _indicator(
    name: str,
    value: float | None,
    threshold: float,
    *,
    streak: int = 0,
    needed: int,
    why: str = "",
) -> dict[str, Json]:
    return {
        "name": name,
        "value": value,
        "threshold": threshold,
        "on": streak >= needed,
        "streak": streak,
        "needed": needed,
        "why": why,
    }


def _probed(checkpoint: str, run: str, sides: tuple[str | None, ...], *, known: bool) -> Json:
    """What one checkpoint answered."""
    samples: list[dict[str, Json]] = [
        {
            "completion": "<think>AAPL closed at $691.28, above its 20-day mean, on rising volume. "
            f"I expect {side}.</think>\n<answer>{side} 0.8% confidence 62%</answer>"
            if side
            else "The stock may go either way, as stocks do.",
            "finished": side is not None,
            "direction": side,
            "percent": 0.8 if side else None,
            "confidence": 0.62 if side else None,
            "error": None if side else "no answer",
            "reward": ((0.9 if side == "UP" else 0.1) if side else -0.15) if known else None,
        }
        for side in sides
    ]
    return {"checkpoint": checkpoint, "run": run, "samples": samples, **tally(samples)}


def _side(side: str, accuracy: float, total: int) -> dict[str, Json]:
    """Accuracy on the days that went one way, with its interval."""
    return {
        f"accuracy/{side}": accuracy,
        f"accuracy/{side}_low": max(0.0, accuracy - 0.12),
        f"accuracy/{side}_high": min(1.0, accuracy + 0.12),
        f"accuracy/{side}_n": total // 2,
    }


def _value(record: RolloutRecord, name: str) -> float:
    return next(part.value for part in record.components if part.name == name)


def _example(rng: random.Random) -> tuple[dict[str, Any], str]:
    ticker = rng.choice(TICKERS)
    day = dt.date(2012, 1, 3) + dt.timedelta(days=rng.randrange(300))
    closes = [rng.uniform(80, 700)]
    for _ in range(9):
        closes.append(closes[-1] * (1 + rng.gauss(0.0004, 0.014)))
    move = rng.gauss(0.05, 1.5)
    change = 100 * (closes[-1] / closes[-2] - 1)
    subject: dict[str, Any] = {
        "ticker": ticker,
        "as_of": day.isoformat(),
        "actual_direction": "UP" if move > 0 else "DOWN",
        "actual_percent": round(move, 2),
        "closes": [round(close, 2) for close in closes],
        "day_change": round(change, 2),
    }
    prompt = (
        "You forecast the next trading day of one stock. Think, then answer.\n\n"
        f"Ticker {ticker}, as of {day.isoformat()}\n"
        f"Close, last 10 days: {', '.join(f'{close:.2f}' for close in closes)}\n"
        f"Change today: {change:+.2f} %\n"
        f"Volume against its 20-day mean: {rng.uniform(0.6, 1.7):.2f}\n"
        f"RSI(14): {rng.uniform(28, 74):.1f}\n"
        f"SMA(20): {sum(closes) / 10:.2f}\n"
        f"20-day volatility: {rng.uniform(0.8, 2.4):.2f} %\n\n"
        "Write <think>your reasoning</think> and then\n"
        "<answer>UP|DOWN x.x% confidence NN%</answer>"
    )
    return subject, prompt


def _answer(
    rng: random.Random, subject: dict[str, Any], progress: float, up_factor: float
) -> tuple[str, dict[str, Json], tuple[ComponentScore, ...], tuple[tuple[int, int], ...]]:
    actual, size = str(subject["actual_direction"]), abs(float(subject["actual_percent"]))
    parsed = rng.random() < 0.86 + 0.14 * progress
    is_right = rng.random() < 0.5 + 0.06 * progress
    called = actual if is_right else {"UP": "DOWN", "DOWN": "UP"}[actual]
    percent = round(abs(rng.gauss(0.9, 0.5)) + 0.1, 1)
    sure = round(rng.uniform(0.52, 0.88 - 0.1 * progress), 2)
    close, change = f"{subject['closes'][-1]:.2f}", f"{subject['day_change']:+.2f} %"
    mood = "rising" if called == "UP" else "fading"
    completion = (
        f"<think>{subject['ticker']} closed at {close}, {change} on the day. Momentum is {mood} "
        f"and the 20-day mean lies near, so I expect {called}.</think>\n"
        f"<answer>{called} {percent}% confidence {sure * 100:.0f}%</answer>"
    )
    cited = tuple(
        (completion.index(fact), completion.index(fact) + len(fact))
        for fact in (str(subject["ticker"]), close, change)
    )
    if not parsed:
        prediction: dict[str, Json] = {"error": "no <answer> block", "reasoning": None}
        completion = completion.partition("<answer>")[0] + f"I would say {called.lower()}."
        scores = (0.0, 0.0, 0.0, -1.5, 0.6, 0.5)
        reasons = ("no <answer> block", "no side called", "no percent", "none stated", "", "")
        return completion, prediction, _components(scores, reasons), cited
    magnitude = max(0.0, 1 - abs(percent - size) / 2.9) if is_right else 0.0
    confidence = 1 - 1.3 * (1 - sure) ** 2 if is_right else -0.2 - 1.3 * sure**2
    arrows = {"UP": "▲", "DOWN": "▼"}
    reasons = (
        "reasoning and one answer",
        f"called {arrows[called]}, market went {arrows[actual]}",
        f"{abs(percent - size):.1f} points off; 2σ20 is 2.9 points" if is_right else "wrong side",
        f"{sure * 100:.0f} % sure and {'right' if is_right else 'wrong'}",
        "3 facts found in the prompt",
        "names its side, cites before it concludes",
    )
    scores = (1.0, float(is_right), magnitude, confidence, 0.8, 0.75)
    prediction = {
        "direction": called,
        "percent": percent,
        "confidence": sure,
        "reasoning": completion.partition("<think>")[2].partition("</think>")[0],
    }
    factor = up_factor if called == "UP" else 1.0
    return completion, prediction, _components(scores, reasons, factor), cited


def _components(
    scores: tuple[float, ...], reasons: tuple[str, ...], factor: float = 1.0
) -> tuple[ComponentScore, ...]:
    shaped = ("direction", "magnitude")
    return tuple(
        ComponentScore(name, value, weight, reason, factor if name in shaped else 1.0)
        for (name, weight), value, reason in zip(WEIGHTS.items(), scores, reasons, strict=True)
    )


def _write_checkpoint(folder: Path) -> None:
    """The files of a checkpoint that a promotion looks at: a tiny adapter and its manifest."""
    folder.mkdir()
    adapter = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "smollm2-135m",
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {
            f"{layer}.lora_A.weight": np.zeros((2, 4), np.float32),
            f"{layer}.lora_B.weight": np.ones((4, 2), np.float32),
        },
        folder / "adapter_model.safetensors",
    )
    files = [
        manifest.Entry(file.name, file.stat().st_size, checkpoint_names.sha256(file))
        for file in folder.iterdir()
    ]
    is_in_run = checkpoint_names.FOLDER.fullmatch(folder.name)
    step = checkpoint_names.step_of(folder.name) if is_in_run else 0
    (folder / "manifest.json").write_text(manifest.text(step, files))


def new_run(name: str = "demo", *, max_steps: int = 500) -> Recording:
    """A fresh run directory in ``$STONK_HOME`` and the recording that writes it."""
    config = configuration.preset("demo").model_copy(update={"name": name})
    moment = dt.datetime.fromtimestamp(START, dt.UTC).replace(tzinfo=None)
    return Recording(directory.create(config, now=moment), max_steps)


def record(steps: int = 128, *, name: str = "demo", state: str = "training") -> Recording:
    """A whole run up to ``state``; ``state`` ``stale`` is one whose worker is gone."""
    recording = new_run(name)
    recording.starts()
    recording.is_loaded()
    recording.warms_up()
    recording.state("training")
    recording.validates()
    recording.trains(steps)
    if state not in ("training", "stale"):
        details = {
            "failed": "CUDA out of memory: 11.2 of 12.0 GiB are taken",
            "stopped": "stopped by command",
        }
        recording.state(state, details.get(state, ""))
    recording.closes()
    if state not in ("stale", "failed", "finished", "stopped"):
        recording.run.record_worker()
    (recording.run.log).write_text("loading smollm2-135m\nadapter: 4.9 M parameters\n")
    return recording


def promote(parent: Recording, reason: str = "to see what the natural market does") -> Recording:
    """The Stage II run that a promotion of the best checkpoint prepares."""
    plan = promotion.plan(parent.run)
    run = promotion.promote(plan, reason=reason, forced=not plan.is_earned)
    moved = run.path.with_name(f"20251120-0{len(list(run.path.parent.iterdir()))}0000-demo-stage2")
    run.path.rename(moved)
    return Recording(RunDirectory(moved), parent.max_steps, stage="II")


def record_stage2(steps: int = 40) -> Recording:
    """A run in Stage II after ``steps`` steps."""
    recording = promote(record(60, state="finished"))
    recording.starts()
    recording.store.event("promotion", json.loads(recording.run.promotion.read_text()))
    recording.is_loaded()
    recording.state("training")
    recording.validates()
    recording.trains(steps, every=20)
    recording.closes()
    recording.run.record_worker()
    return recording


def record_long(steps: int = 10_000) -> Recording:
    """A run of ``steps`` step events, its last one with rollouts; quick to write."""
    recording = new_run("long", max_steps=steps)
    recording.starts()
    recording.is_loaded()
    recording.state("training")
    records = recording._rollouts(1)
    payload = recording._step_payload(records)
    metrics = payload["metrics"]
    assert isinstance(metrics, dict)
    for step in range(1, steps + 1):
        metrics["reward/total"] = 0.4 + 0.1 * math.sin(step / 300) + recording.random.gauss(0, 0.05)
        recording.store.event("step", payload, step=step)
    recording.store.rollouts(steps, records)
    recording.closes()
    recording.run.record_worker()
    return recording


def damaged(path: Path) -> None:
    """Overwrite the middle of a store with what is not a database."""
    with path.open("r+b") as file:
        file.seek(0)
        file.write(b"not a database at all" * 300)
