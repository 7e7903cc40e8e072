"""The models that the speed benches run on; some have random weights and need no download."""

from pathlib import Path
from typing import Any

from engine.policy.embedded import default_cache_dir, ensure_embedded_model
from engine.presets import EMBEDDED_MODEL

RANDOM: dict[str, dict[str, Any]] = {
    # The configuration of Qwen2.5-1.5B.
    "qwen2.5-1.5b-random": {
        "hidden_size": 1536,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "intermediate_size": 8960,
        "vocab_size": 151_936,
        "max_position_embeddings": 131_072,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": True,
    },
    # To see in seconds whether a bench still works.
    "tiny": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}
"""Qwen2 configurations that are filled with random weights."""

MODELS = (EMBEDDED_MODEL, *RANDOM)


def model_folder(name: str) -> Path:
    """The folder with weights and tokenizer of ``name``, made on the first call."""
    if name == EMBEDDED_MODEL:
        return ensure_embedded_model(default_cache_dir(), lambda phase, done, total: None)
    folder = default_cache_dir() / "bench" / name
    if not folder.exists():
        unfinished = folder.with_name(f"{name}.part")
        _write_random(unfinished, RANDOM[name])
        unfinished.rename(folder)
    return folder


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of such a folder, as its file says: transformers would take a class of its
    own for some kinds of model, whatever is in there."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")


def _write_random(folder: Path, values: dict[str, Any]) -> None:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    # A word for every id: prompts of any length are easily made, and any completion has a text.
    words = {f"w{number}": number for number in range(values["vocab_size"])}
    words_of_text = Tokenizer(models.WordLevel(words, unk_token="w0"))
    words_of_text.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words_of_text, eos_token="w1", pad_token="w1"
    ).save_pretrained(folder)
    config = Qwen2Config(**values, bos_token_id=None, eos_token_id=1, pad_token_id=1)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
