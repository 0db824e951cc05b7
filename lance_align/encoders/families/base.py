"""What a model family has to say of itself; all else is the same for every family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from lance_align.encoders.base import Score
from lance_align.encoders.pixels import PairTower, PixelInput, PixelTower
from lance_align.encoders.weights import Weights
from lance_align.errors import ModelError
from lance_align.spec import ImageSpec

_Tower = TypeVar("_Tower", bound=nn.Module)


class Family(ABC):
    """A kind of checkpoint with two towers into one space.

    Attributes:
        config_class: the transformers class of its config.json.
        model_class: the transformers class whose ``save_pretrained`` writes such checkpoints.
        tensors: prefixes of all tensors of such a checkpoint.
        unused: prefixes of those that no vector depends on.
        processor: see `read_image_spec`: the kind of a preprocessor_config.json without a class name.
        exact: whether it computes in float32 only: where a model decides between parts of an input, bfloat16 decides
            otherwise now and then.
        pads_texts: whether the model was trained on texts padded to the longest length, without a mask.
    """

    config_class: ClassVar[str]
    model_class: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]]
    unused: ClassVar[tuple[str, ...]] = ()
    processor: ClassVar[str] = "CLIP"
    exact: ClassVar[bool] = False
    pads_texts: ClassVar[bool] = False

    def config(self, raw: dict[str, Any], *, where: str) -> Any:
        """transformers' configuration of a parsed config.json, whose model has float32 weights whatever it says.

        Raises:
            ModelError: a field has a wrong type.
        """
        import transformers

        try:
            # Not the model's own `config_class`: its module takes seconds to import.
            return getattr(transformers, self.config_class).from_dict(_without_types(raw))
        except Exception as error:  # transformers validates with its own, changing, exception classes
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{where} is not a valid configuration of {self.model_class} ({reason}); save the model again"
            ) from error

    def dim(self, config: Any) -> int:
        """Length of an embedding."""
        return int(config.projection_dim)

    def max_tokens(self, config: Any) -> int:
        """The longest text in tokens, special tokens included, that the text tower takes."""
        return int(config.text_config.max_position_embeddings)

    def frames(self, config: Any) -> int | None:
        """Of a video; None for a family that looks at pictures."""
        del config
        return None

    def check_image(self, config: Any, image: ImageSpec, *, where: str) -> None:
        """Check that the image processor's pictures are those that the tower takes.

        Raises:
            ModelError: they are of another size.
        """
        size = config.vision_config.image_size
        expected = (size, size) if isinstance(size, int) else tuple(size)
        if image.crop != expected:
            raise ModelError(
                f"{where}: the image processor gives pictures of {image.crop}, the image tower takes {expected} "
                "(height, width); save the processor of this model beside it"
            )

    def image_tower(self, config: Any, image: ImageSpec, directory: Path, weights: Weights) -> PixelTower:
        """The image tower on the CPU in eval mode, from only its own tensors.

        Raises:
            ModelError: the weights do not fit the configuration.
        """
        del directory
        return self._filled(lambda: self.new_image_tower(config, image), weights)

    def text_tower(self, config: Any, directory: Path, weights: Weights) -> nn.Module:
        """Token ids and mask, ``(n, length) int64``, to features ``(n, dim) float32``; as `image_tower`."""
        del directory
        return self._filled(lambda: self.new_text_tower(config), weights)

    def matcher(self, config: Any, image: ImageSpec, weights: Weights) -> PairTower:
        """What scores a text with pictures by looking at both at once; as `image_tower`.

        Raises:
            ModelError: also for a family without such a part.
        """
        return self._filled(lambda: self.new_matcher(config, image), weights)

    def segmenter(self, config: Any, image: ImageSpec, weights: Weights) -> PairTower:
        """What says which part of a picture shows which of some text vectors; as `matcher`."""
        return self._filled(lambda: self.new_segmenter(config, image), weights)

    @abstractmethod
    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """The tower without weights; the names in its state dict are those of the checkpoint."""

    @abstractmethod
    def new_text_tower(self, config: Any) -> nn.Module:
        """As `new_image_tower`."""

    def new_matcher(self, config: Any, image: ImageSpec) -> PairTower:
        """As `new_image_tower`."""
        del config, image
        raise ModelError(f"{self.model_class} does not score pairs; BlipForImageTextRetrieval and XCLIPModel do")

    def new_segmenter(self, config: Any, image: ImageSpec) -> PairTower:
        """As `new_image_tower`."""
        del config, image
        raise ModelError(f"{self.model_class} does not segment pictures; GroupViTModel does")

    def score(self, weights: Weights) -> Score:
        """What makes a logit of a cosine.

        Raises:
            ModelError: the checkpoint does not say.
        """
        return Score.of_scale(weights.scalar("logit_scale"))

    def check_weights(self, weights: Weights) -> None:
        """Refuse a file of another model.

        Raises:
            ModelError: it holds tensors that this family does not have; names the first few.
        """
        weights.check_prefixes(*self.tensors, model_class=self.model_class)

    def check_towers(self, config: Any, image: ImageSpec, directory: Path, weights: Weights) -> None:
        """Check, by the header of the weights, that both towers can be made of them.

        Raises:
            ModelError: tensors are missing, left over, or of another shape or a quantised type.
        """
        del directory
        with torch.device("meta"):
            towers = (self.new_image_tower(config, image), self.new_text_tower(config))
        for tower in towers:
            weights.check(tower, unused=self.unused)

    def whole(self, config: Any) -> Any:
        """The whole transformers model, to take a tower's parts from; costs nothing on the meta device."""
        import transformers

        return getattr(transformers, self.model_class)(config)

    def _filled(self, new: Callable[[], _Tower], weights: Weights) -> _Tower:
        with torch.device("meta"):
            tower = new().to(torch.float32)
        tower.to_empty(device="cpu")
        restore_buffers(tower)
        weights.fill(tower, unused=self.unused)
        return tower.eval().requires_grad_(False)


def _without_types(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the types that weights were saved in, its own and those of its parts.

    transformers builds a part in the type that its own configuration names (`_from_config`, 5.24), so that half of a
    model would compute in float16.
    """
    return {
        name: _without_types(value) if isinstance(value, dict) else value
        for name, value in raw.items()
        if name not in ("dtype", "torch_dtype")
    }


def restore_buffers(tower: nn.Module) -> None:
    """Give those buffers that are part of no checkpoint, undefined after `to_empty`, the values they are made with.

    Raises:
        ModelError: a buffer whose value is not known here.
    """
    if isinstance(tower, PixelInput):
        tower.set_scale()
    kept = {id(buffer) for buffer in tower.state_dict(keep_vars=True).values()}
    for name, buffer in tower.named_buffers():
        last = name.rpartition(".")[2]
        if id(buffer) in kept or name in ("scale", "shift"):
            continue
        if last == "position_ids":
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        elif last == "token_type_ids":
            buffer.zero_()
        else:
            raise ModelError(f"transformers has a buffer {name!r} that this version of lance_align does not know")
