"""Real ALIGN checkpoints for tests: built from a configuration, initialised so that vectors differ, saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

# The words of the captions in the tests; the rest of a vocabulary is single characters and filler.
CAPTION_WORDS = (
    "a an the of on in with and photo picture cat dog car red green blue small large sitting under table hill "
    "mountain river at night running two three children playing ball old house bright sky street tree"
)

# align-base's own preprocessor_config.json.
BASE_PREPROCESSOR = {
    "crop_size": {"height": 289, "width": 289},
    "do_center_crop": True,
    "do_normalize": False,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "EfficientNetImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "include_top": False,
    "resample": 2,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "size": {"height": 346, "width": 346},
}
SMALL_PREPROCESSOR = {
    **BASE_PREPROCESSOR,
    "size": {"height": 76, "width": 76},
    "crop_size": {"height": 64, "width": 64},
}


def base_config() -> Any:
    """align-base's configuration: 172 M parameters. Class defaults differ in these two fields."""
    from transformers import AlignConfig

    return AlignConfig(vision_config={"image_size": 289, "hidden_dim": 640})


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


def build_model(config: Any, *, seed: int, warm_up: int) -> Any:
    """A model whose vectors tell inputs apart and do not magnify rounding.

    transformers' own initialisation lets the image features underflow to zero and makes all captions nearly one
    vector; convolutions that keep the variance make a network so chaotic that noise of 1e-6 in a pixel turns the vector
    by 60 degrees. Here residual branches are damped, as training damps them, BatchNorm takes its statistics from
    `warm_up` images, and BERT's weights are wider.
    """
    from transformers import AlignModel

    torch.manual_seed(seed)
    model = AlignModel(config)
    for module in model.vision_model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average over the batches seen
        elif isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for block in model.vision_model.encoder.blocks:
        if block.projection.apply_dropout:  # the block adds its input
            torch.nn.init.constant_(block.projection.project_bn.weight, 0.1)
    for module in model.text_model.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            torch.nn.init.normal_(module.weight, std=1.5 / module.weight.shape[-1] ** 0.5)
    coarse = torch.rand(warm_up, 3, 4, 5) * 2 - 1
    size = config.vision_config.image_size
    with torch.no_grad():
        model.train().vision_model(torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(-1, 1))
    return model.eval()


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
