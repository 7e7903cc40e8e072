"""What a step will cost: measured where it was, computed where it can be, and otherwise unknown."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine import config as configuration
from engine.config import RunConfig
from engine.runs.directory import RunDirectory
from engine.runs.summary import Summary
from stonk_tui.estimate import Estimate, count_parameters, estimate
from stonk_tui.run_list import Listed
from stonk_tui.screens.new_run import in_words

DEMO = configuration.preset("demo")


def earlier(
    name: str, config: RunConfig = DEMO, *, device: str = "cpu", seconds: float | None = 8.5
) -> Listed:
    summary = Summary(device=device, step_seconds=seconds, memory_gib=3.25)
    return Listed(RunDirectory(Path("/runs") / name), "finished", "", summary, config)


def test_newest_run_of_the_same_sizes_counts() -> None:
    runs = [earlier("1", seconds=7.0), earlier("2"), earlier("3", seconds=None)]
    found = estimate(DEMO, "cpu", runs)
    assert (found.seconds, found.memory_gib, found.differs) == (8.5, 3.25, ())
    assert found.run == runs[1].run
    assert "a step 8 s   memory 3.2 GiB\nmeasured in 2, the same sizes" in in_words(found).plain


def test_settings_that_cost_nothing_do_not_matter() -> None:
    other = configuration.with_overrides(DEMO, ["seed=9", "optimizer.learning_rate=1", "name=x"])
    assert estimate(other, "cpu", [earlier("1")]).differs == ()


def test_run_of_other_sizes_is_a_hint_and_says_so() -> None:
    larger = configuration.with_overrides(DEMO, ["rollout.group_size=8", "lora.r=4"])
    other = configuration.with_overrides(DEMO, ["rollout.group_size=8"])
    runs = [earlier("1", larger), earlier("2", other), earlier("3", larger)]
    found = estimate(DEMO, "cpu", runs)
    # The one that differs least, not the newest.
    assert found.run == runs[1].run
    assert found.differs == ("rollout.group_size",)
    assert "but with other rollout.group_size: a hint only" in in_words(found).plain


def test_other_device_or_other_model_says_nothing() -> None:
    elsewhere = configuration.with_overrides(DEMO, ["model.id=/some/model"])
    for run in (earlier("1", device="cuda:0"), earlier("2", elsewhere)):
        found = estimate(DEMO, "cpu", [run])
        assert (found.seconds, found.run) == (None, None)
    assert estimate(DEMO, "cuda:1", [earlier("1", device="cuda:0")]).seconds == 8.5


@pytest.mark.parametrize(
    ("device", "overrides", "each"),
    [
        ("cpu", [], 4),
        ("cuda:0", [], 2),
        ("cuda:0", ["model.quantize=nf4"], 0.6),
        ("cpu", ["model.dtype=bf16"], 2),
    ],
)
def test_weights_follow_from_the_number_of_parameters(
    device: str, overrides: list[str], each: float
) -> None:
    found = estimate(configuration.with_overrides(DEMO, overrides), device, [])
    assert found.parameters == 134_515_008
    assert found.weights_gib == pytest.approx(134_515_008 * each / 2**30)
    text = in_words(found).plain
    assert "a step not known before the first step" in text
    assert "for the weights alone" in text
    assert f"0.13 B parameters × {each:g} bytes, from the model's known size" in text


def test_local_model_is_counted_by_its_configuration(tmp_path: Path) -> None:
    # Two layers of: q, o 8x8 and k, v 8x4 (96 each way), MLP 3x8x16, norms 2x8; embeddings tied.
    shape = {
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 16,
        "vocab_size": 100,
        "tie_word_embeddings": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(shape))
    count, origin = count_parameters(str(tmp_path))
    assert count == 100 * 8 + 2 * (2 * 64 + 2 * 32 + 3 * 128 + 16) + 8
    assert origin == f"its config.json in {tmp_path}"


def test_cached_hub_model_is_counted_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert count_parameters("me/mine") == (None, "")
    folder = tmp_path / "models--me--mine" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("not json")
    assert count_parameters("me/mine") == (None, "")
    (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    assert count_parameters("me/mine") == (None, "")


def test_what_is_not_known_is_not_made_up() -> None:
    unknown = configuration.with_overrides(DEMO, ["model.id=no/such"])
    found = estimate(unknown, "cpu", [earlier("1")])
    assert found == Estimate()
    assert in_words(found).plain.count("not known before the first step") == 2
    without_memory = replace(earlier("1"), summary=Summary(device="cpu", step_seconds=1.0))
    text = in_words(estimate(DEMO, "cpu", [without_memory])).plain
    assert "memory not known" in text
