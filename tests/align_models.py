"""Real ALIGN checkpoints for tests: built from a configuration, initialised so that vectors differ, saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lance_align.benchmarks.weights import BASE_PREPROCESSOR

# The words of the captions in the tests; the rest of a vocabulary is single characters and filler.
CAPTION_WORDS = (
    "a an the of on in with and photo picture cat dog car red green blue small large sitting under table hill "
    "mountain river at night running two three children playing ball old house bright sky street tree"
)

SMALL_PREPROCESSOR = {
    **BASE_PREPROCESSOR,
    "size": {"height": 76, "width": 76},
    "crop_size": {"height": 64, "width": 64},
}


def small_config() -> Any:
    """The same classes with two stages and two layers: 0.4 M parameters, 32 dimensions."""
    from transformers import AlignConfig

    return AlignConfig(
        projection_dim=32,
        temperature_init_value=0.05,
        text_config={
            "vocab_size": 1000,
            "hidden_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "max_position_embeddings": 96,
        },
        vision_config={
            "image_size": 64,
            "hidden_dim": 32,
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "kernel_sizes": [3, 5, 3],
            "in_channels": [32, 16, 24],
            "out_channels": [16, 24, 32],
            "strides": [1, 2, 2],
            "num_block_repeats": [1, 2, 1],
            "expand_ratios": [1, 6, 6],
        },
    )


def save_checkpoint(model: Any, directory: Path, *, preprocessor: dict[str, Any]) -> Path:
    """Model, tokenizer and image processor configuration, as transformers writes them."""
    model.save_pretrained(directory)
    save_tokenizer(directory, vocab_size=model.config.text_config.vocab_size)
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2))
    return directory


def save_tokenizer(directory: Path, *, vocab_size: int) -> None:
    """A WordPiece tokenizer of BERT's form with exactly `vocab_size` entries."""
    from transformers import BertTokenizer

    letters = [chr(code) for code in range(33, 127)]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    entries = list(dict.fromkeys([*entries, *CAPTION_WORDS.split()]))
    entries += [f"[unused{number}]" for number in range(vocab_size - len(entries))]
    vocab = {token: index for index, token in enumerate(entries)}
    BertTokenizer(vocab=vocab, model_max_length=64).save_pretrained(directory)
