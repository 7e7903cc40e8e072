"""What ``stonk-tui doctor --deep`` runs in processes of their own, to be killed.

    python -m engine.selftest write STORE    events without end; prints how many are durable
    python -m engine.selftest model FOLDER   a language model of a few thousand weights

The model has random weights and a token a byte: it learns nothing, and is trained in seconds.
"""

import sys
from pathlib import Path

from engine.runs.store import EventStore

_EVENTS_AT_ONCE = 3


def write_events(path: Path) -> None:
    """Append numbered events to the store at ``path`` until killed."""
    store = EventStore(path, begins_attempt=False)
    number = 0
    while True:
        for _ in range(_EVENTS_AT_ONCE):
            number += 1
            store.event("notice", {"level": "info", "text": str(number)})
        store.flush()
        print(number, flush=True)


def save_model(folder: Path) -> None:
    """Write the tiny model and its tokenizer as a worker loads them."""
    from engine.policy.quiet import quieten_libraries

    quieten_libraries()
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=(
            "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>{% endif %}"
        ),
    ).save_pretrained(folder)


if __name__ == "__main__":
    {"write": write_events, "model": save_model}[sys.argv[1]](Path(sys.argv[2]))
