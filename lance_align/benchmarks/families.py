"""Every family at the size of its best-known checkpoint: pictures and texts a second, memory, and a reranked candidate.

Weights are made here, from transformers' default configurations, which are those of the checkpoints in `SHAPES`.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lance_align.benchmarks.measuring import OURS, Contender, Line, our_engines, side_by_side
from lance_align.benchmarks.weights import CACHE, spread
from lance_align.encoders import load_encoder
from lance_align.encoders.checkpoints import BUNDLED
from lance_align.encoders.pairs import load_pair_model
from lance_align.images import to_pixels

CANDIDATES = 8


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A checkpoint that transformers' default configuration describes.

    Attributes:
        like: its name.
        model_class: of transformers.
        processor: its image processor, and the side of a picture.
        features: of scaled pixels, as transformers documents it.
    """

    like: str
    model_class: str
    processor: tuple[str, int]
    features: Callable[[Any, torch.Tensor], torch.Tensor] = lambda model, pixels: (
        model.get_image_features(pixel_values=pixels).pooler_output
    )


SHAPES = {
    "clip": Shape(like="openai/clip-vit-base-patch32", model_class="CLIPModel", processor=("CLIP", 224)),
    "siglip": Shape(like="google/siglip-base-patch16-224", model_class="SiglipModel", processor=("Siglip", 224)),
    "groupvit": Shape(like="nvidia/groupvit-gcc-yfcc", model_class="GroupViTModel", processor=("CLIP", 224)),
    "xclip": Shape(
        like="microsoft/xclip-base-patch32",
        model_class="XCLIPModel",
        processor=("VideoMAE", 224),
        features=lambda model, pixels: model.get_video_features(pixels.reshape(-1, 8, *pixels.shape[1:])).pooler_output,
    ),
    "blip": Shape(
        like="Salesforce/blip-itm-base-coco",
        model_class="BlipForImageTextRetrieval",
        processor=("Blip", 384),
        features=lambda model, pixels: model.vision_proj(model.vision_model(pixels).last_hidden_state[:, 0]),
    ),
    "vision-text-dual-encoder": Shape(
        like="clip-italian/clip-italian", model_class="VisionTextDualEncoderModel", processor=("CLIP", 224)
    ),
}


def family_lines(pictures: Sequence[Image.Image], captions: Sequence[str], *, rounds: int) -> Iterator[list[Line]]:
    """The lines of one family after the other; checkpoints are made once, of 0.6 to 1 GB, among the temporary files."""
    for family in SHAPES:
        directory = save_family_checkpoint(family)
        lines = [*_images(family, directory, pictures, rounds=rounds), _texts(family, directory, captions, rounds)]
        if family in ("blip", "xclip"):
            lines.append(_candidates(family, directory, pictures, rounds))
        yield lines


def save_family_checkpoint(family: str, folder: Path = CACHE) -> Path:
    """A checkpoint of a family's published shape, with align-tiny's tokenizer; what is there already is used."""
    import transformers

    shape, directory = SHAPES[family], folder / f"{family}-shape"
    kind, side_px = shape.processor
    if (directory / "preprocessor_config.json").is_file():
        return directory
    model_class: Any = getattr(transformers, shape.model_class)
    if family == "vision-text-dual-encoder":
        config = model_class.config_class.from_vision_text_configs(
            transformers.CLIPVisionConfig(), transformers.BertConfig()
        )
    else:
        config = model_class.config_class()
        config.text_config.eos_token_id = 3  # the tokenizer's [SEP], behind every text
    torch.manual_seed(0)
    spread(model_class(config)).save_pretrained(directory)
    for file in (BUNDLED / "align-tiny").glob("*token*"):
        shutil.copy(file, directory)
    square = {"height": side_px, "width": side_px}
    size = (
        {"size": {"shortest_edge": side_px}, "crop_size": square} if kind in ("CLIP", "VideoMAE") else {"size": square}
    )
    text = json.dumps({"image_processor_type": f"{kind}ImageProcessor", **size})
    (directory / "preprocessor_config.json").write_text(text)
    return directory


def _images(family: str, directory: Path, pictures: Sequence[Image.Image], *, rounds: int) -> list[Line]:
    """Decoded pictures (of X-CLIP, videos of eight) to vectors; transformers gets pixels of ours, and scales them."""
    import transformers

    shape = SHAPES[family]
    encoders = {engine: load_encoder(directory, device="cpu", engine=engine) for engine in our_engines()}
    image = next(iter(encoders.values())).spec.image

    def pixels() -> NDArray[np.uint8]:
        found = np.stack([to_pixels(picture, image) for picture in pictures])
        return (
            found
            if image.frames is None
            else found[: len(found) // image.frames * image.frames].reshape(-1, *image.shape)
        )

    contenders = [
        Contender(f"{OURS}, {engine}", lambda encoder=encoder: encoder.encode_pixels(pixels()))  # type: ignore[misc]
        for engine, encoder in encoders.items()
    ]
    model: Any = getattr(transformers, shape.model_class).from_pretrained(directory)

    @torch.inference_mode()
    def theirs() -> NDArray[np.float32]:
        floats = torch.tensor(pixels()).to(torch.float32) * torch.tensor(image.scale) + torch.tensor(image.shift)
        scaled = floats.flatten(0, -4).permute(0, 3, 1, 2)
        step = 8 * (image.frames or 1)
        found = [shape.features(model, scaled[start : start + step]) for start in range(0, len(scaled), step)]
        return torch.cat(found).numpy()

    unit = "images/s" if image.frames is None else "videos/s"
    lines = side_by_side(
        f"{family}, images", [*contenders, Contender("transformers, batch 8", theirs)], rounds=rounds, unit=unit
    )
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    notes = {"M parameters": parameters, "MiB": _memory_mb(directory, engine=our_engines()[0])}
    return [dataclasses.replace(lines[0], notes=notes), *lines[1:]]


def _texts(family: str, directory: Path, captions: Sequence[str], rounds: int) -> Line:
    encoder = load_encoder(directory, device="cpu")
    return _line(f"{family}, texts", OURS, "captions/s", len(captions), rounds, lambda: encoder.encode_texts(captions))


def _candidates(family: str, directory: Path, pictures: Sequence[Image.Image], rounds: int) -> Line:
    """Decoded candidates of one query, scored."""
    model = load_pair_model(directory, part="matcher", device="cpu")
    image = model.spec.image
    shown = np.stack([to_pixels(picture, image) for picture in pictures])
    pixels = np.resize(shown, (CANDIDATES, *image.shape))
    scores = lambda: model.scores("two dogs and a red ball on the grass", pixels)  # noqa: E731 - a closure of four lines
    line = _line(f"{family}, reranked", OURS, "candidates/s", CANDIDATES, rounds, scores)
    return dataclasses.replace(line, notes={"ms a candidate": 1000 / line.median})


def _line(part: str, name: str, unit: str, rows: int, rounds: int, work: Callable[[], object]) -> Line:
    work()
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        rates.append(rows / (time.perf_counter() - started))
    return Line(part=part, name=name, unit=unit, median=statistics.median(rates), low=min(rates), high=max(rates))


_MEMORY = """
import sys
import numpy as np
from lance_align import load_encoder
from lance_align.benchmarks.processes import own_mb
encoder = load_encoder(sys.argv[1], device="cpu", engine=sys.argv[2])
encoder.encode_pixels(np.zeros((4, *encoder.spec.image.shape), np.uint8))
encoder.encode_texts(["a red car"])
print(own_mb())
"""


def _memory_mb(directory: Path, *, engine: str) -> float:
    """Of a process that has embedded four pictures and a text: what is its own, in MiB."""
    command = [sys.executable, "-c", _MEMORY, str(directory), engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - a program of this package
    return float(done.stdout)
