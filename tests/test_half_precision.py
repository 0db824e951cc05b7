"""Checkpoints in half precision, as most are published: computed in float32, whatever their configuration says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lance_align import load_encoder
from lance_align.encoders import resolve_spec
from lance_align.encoders.engines.base import MIN_COSINE
from lance_align.encoders.two_towers import image_tower, opened, text_tower
from lance_align.errors import ModelError
from tests import family_models
from tests.family_models import SAMPLES, Reference, save_family, smallest_cosine
from tests.pictures import scene


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of a family in float32, made at first use."""
    folder = tmp_path_factory.mktemp("whole")
    return lambda name: folder / name if (folder / name).is_dir() else save_family(name, folder / name, seed=3)


def halved(directory: Path, to: Path, dtype: str) -> Path:
    """A copy in half precision, whose configuration and those of its parts say so in old words and in new ones."""
    shutil.copytree(directory, to)
    weights = load_file(to / "model.safetensors")
    narrow = {
        name: value.to(getattr(torch, dtype)) if value.is_floating_point() else value for name, value in weights.items()
    }
    save_file(narrow, to / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((to / "config.json").read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        part["dtype"] = part["torch_dtype"] = dtype
    (to / "config.json").write_text(json.dumps(config))
    return to


def types(module: torch.nn.Module) -> set[torch.dtype]:
    found = [*module.parameters(), *module.buffers()]
    return {each.dtype for each in found if each.is_floating_point()}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_all_that_is_made_of_a_half_precision_checkpoint_is_float32(
    name: str, whole: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = halved(whole(name), tmp_path / name, "float16")
    spec = resolve_spec(directory)
    family, config, weights = opened(spec, directory)
    made: list[torch.nn.Module] = [image_tower(spec, directory), text_tower(spec, directory)]
    for part in (family.matcher, family.segmenter):
        try:
            made.append(part(config, spec.image, weights))
        except ModelError as error:
            assert "does not" in str(error)  # noqa: PT017  # the family has no such part
    assert len(made) == (3 if name in ("blip", "xclip", "groupvit") else 2)
    assert [types(module) for module in made] == [{torch.float32}] * len(made)


def test_a_part_of_another_type_than_the_rest_is_float32(whole: Callable[[str], Path], tmp_path: Path) -> None:
    directory = tmp_path / "mixed"
    shutil.copytree(whole("clip"), directory)
    config = json.loads((directory / "config.json").read_text())
    config["vision_config"]["dtype"] = "float16"
    (directory / "config.json").write_text(json.dumps(config))
    pictures = [scene(40, 40, seed=seed) for seed in range(2)]
    found, expected = (
        load_encoder(path, device="cpu", engine="torch").encode_images(pictures).vectors
        for path in (directory, whole("clip"))
    )
    np.testing.assert_array_equal(found, expected)


def test_a_deep_tower_in_half_precision_has_the_vectors_of_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two layers rounding is not seen; of twelve it is, and OpenVINO was refused for it."""
    layers: dict[str, Any] = {"num_hidden_layers": 12}
    monkeypatch.setattr(family_models, "LAYERS", family_models.LAYERS | layers)
    monkeypatch.setattr(family_models, "EYE", family_models.EYE | layers)
    directory = halved(save_family("siglip", tmp_path / "whole", seed=3), tmp_path / "half", "bfloat16")
    theirs = Reference("siglip", directory)
    theirs.model = theirs.model.float()
    pictures = [scene(40, 40, seed=seed) for seed in range(3)]
    expected = [theirs.image(picture) for picture in pictures]
    for engine in ("torch", "openvino"):
        ours = load_encoder(directory, device="cpu", engine=engine)  # type: ignore[arg-type]
        assert smallest_cosine(ours.encode_images(pictures).vectors, expected) >= MIN_COSINE
    words = ours.encode_texts(["a red car"]).vectors
    assert smallest_cosine(words, [theirs.text("a red car")]) >= MIN_COSINE
