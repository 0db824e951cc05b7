"""A checkpoint of align-base's configuration, made here: what speed needs of a model is its shape.

Its vectors mean nothing, but they tell pictures and captions apart and do not magnify rounding, so that cosines between
two ways to compute them mean something.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from lance_align.encoders.checkpoints import BUNDLED

CACHE = Path(tempfile.gettempdir(), "lance-align-benchmark")  # what takes long to make is kept here
IMAGE_FLOP = 16.8e9  # of align-base's image tower, one picture of 289 pixels
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


def base_config() -> Any:
    """align-base's configuration: 172 M parameters. Class defaults differ in these two fields."""
    from transformers import AlignConfig

    return AlignConfig(vision_config={"image_size": 289, "hidden_dim": 640})


def build_model(config: Any, *, seed: int, warm_up: int, texture: float = 0.0) -> Any:
    """A model whose vectors tell inputs apart and do not magnify rounding.

    transformers' own initialisation lets the image features underflow to zero and makes all captions nearly one
    vector; convolutions that keep the variance make a network so chaotic that noise of 1e-6 in a pixel turns the vector
    by 60 degrees. Here residual branches are damped, as training damps them, BatchNorm takes its statistics from
    `warm_up` images, and BERT's weights are wider.

    Args:
        config: of transformers.
        seed: of weights and images.
        warm_up: how many images.
        texture: standard deviation, of pixels from -1 to 1, of noise at each octave of the images. Without any, the
            network makes as much of noise in a photograph as of what it shows: one level up or down in a quarter of the
            pixels gives cosines of 0.91 to 0.98 at align-base's shape (measured).
    """
    from transformers import AlignModel

    torch.manual_seed(seed)
    model: Any = AlignModel(config)
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
        images = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
        if texture:
            images += texture * _octaves(warm_up, size)
        model.train().vision_model(images.clamp(-1, 1))
    return model.eval()


def spread(model: Any) -> Any:
    """Weights wide enough that inputs differ, and statistics and scales that are nobody's defaults; in eval mode.

    Args:
        model: of any family but ALIGN (see `build_model`); it is changed.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=1.2 / parameter.shape[-1] ** 0.5)
            elif parameter.ndim == 1:
                parameter += 0.05 * torch.randn_like(parameter)
        for name, value in (("logit_scale", 3.1), ("logit_bias", -4.0)):
            if hasattr(model, name):
                getattr(model, name).fill_(value)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d) and module.running_mean is not None:
                torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]  # both are there
    return model.eval()


def _octaves(number: int, size: int) -> torch.Tensor:
    """Grey noise of standard deviation 1 at every octave, as photographs have it: ``(number, 1, size, size)``."""
    field = torch.zeros(number, 1, size, size)
    for octave in range(size.bit_length() - 1):
        noise = torch.randn(number, 1, -(-size // 2**octave), -(-size // 2**octave))
        field += torch.nn.functional.interpolate(noise, (size, size), mode="bicubic")
    return field


def save_base_checkpoint(directory: Path = CACHE / "align-base-textured", *, seed: int = 0) -> Path:
    """172 M parameters in `directory`, 0.7 GB, with align-tiny's tokenizer; what is there already is used.

    Its vocabulary is smaller than BERT's, so captions become a few more tokens.
    """
    if (directory / "preprocessor_config.json").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    build_model(base_config(), seed=seed, warm_up=6, texture=3 / 127.5).save_pretrained(directory)
    for file in (BUNDLED / "align-tiny").glob("*token*"):
        shutil.copy(file, directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(BASE_PREPROCESSOR, indent=2))
    return directory
