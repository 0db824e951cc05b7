"""VisionTextDualEncoder: any vision and any text model of two closed lists, with two learnt projections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lance_align.encoders.base import Score
from lance_align.encoders.families.base import Family
from lance_align.encoders.families.clip import ImageTower, TextTower
from lance_align.encoders.pixels import PixelTower
from lance_align.encoders.pretrained import load_pretrained
from lance_align.encoders.weights import Weights
from lance_align.errors import ModelError, few
from lance_align.spec import ImageSpec

# Those whose pooled state transformers' model takes; others have none, or need a processor of another kind.
VISION_MODELS = ("clip_vision_model", "deit", "vit")
TEXT_MODELS = ("bert", "clip_text_model", "roberta", "xlm-roberta")

# ``from_vision_text_pretrained`` draws the projections from a normal distribution of this standard deviation
# (`PreTrainedModel._init_weights`) and leaves `logit_scale` at its initial value. Of n such numbers the deviation is
# 0.02 within 0.02 / sqrt(2 n): 5 % are five times that for the smallest published projection.
INITIAL_STD = 0.02
INITIAL_SCALE = 2.6592  # CLIP's, and the configuration's default
NEAR = 0.05


class Dual(Family):
    """Tensor names depend on the vision model and on the release that wrote them, so transformers loads the parts."""

    config_class = "VisionTextDualEncoderConfig"
    model_class = "VisionTextDualEncoderModel"
    tensors = ("vision_model.", "visual_projection.", "text_model.", "text_projection.", "logit_scale")
    processor = "ViT"

    def config(self, raw: dict[str, Any], *, where: str) -> Any:
        """See `Family.config`.

        Raises:
            ModelError: also for a vision or text model that is not of the lists.
        """
        for part, known in (("vision_config", VISION_MODELS), ("text_config", TEXT_MODELS)):
            kind = raw[part].get("model_type") if isinstance(raw.get(part), dict) else None
            if kind not in known:
                raise ModelError(f"{where}: {part} is of a {kind!r} model; expected one of {', '.join(known)}")
        return super().config(raw, where=where)

    def max_tokens(self, config: Any) -> int:
        """See `Family.max_tokens`; RoBERTa counts places from behind the number of its padding token."""
        offset = config.text_config.pad_token_id + 1 if "roberta" in config.text_config.model_type else 0
        return super().max_tokens(config) - int(offset)

    def check_weights(self, weights: Weights) -> None:
        """See `Family.check_weights`.

        Raises:
            ModelError: also for projections that nobody has trained.
        """
        super().check_weights(weights)
        if abs(_scale(weights) - INITIAL_SCALE) < 1e-4 and all(
            _is_as_drawn(weights.tensor(f"{side}_projection.weight")) for side in ("visual", "text")
        ):
            raise ModelError(
                f"{weights.path}: the projections are as from_vision_text_pretrained draws them, so vectors would be "
                "random; train the model first (pipelines/train.py), or name one that is trained"
            )

    def score(self, weights: Weights) -> Score:
        """See `Family.score`."""
        return Score.of_scale(_scale(weights))

    def check_towers(self, config: Any, image: ImageSpec, directory: Path, weights: Weights) -> None:
        """See `Family.check_towers`; only by loading them is it known which tensors transformers takes for which."""
        self.image_tower(config, image, directory, weights)
        self.text_tower(config, directory, weights)

    def image_tower(self, config: Any, image: ImageSpec, directory: Path, weights: Weights) -> PixelTower:
        """See `Family.image_tower`."""
        del weights
        return ImageTower(_half(config, directory, "vision"), image).eval().requires_grad_(False)

    def text_tower(self, config: Any, directory: Path, weights: Weights) -> nn.Module:
        """See `Family.text_tower`."""
        del weights
        return TextTower(_half(config, directory, "text")).eval().requires_grad_(False)

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`."""
        return ImageTower(self.whole(config), image)

    def new_text_tower(self, config: Any) -> nn.Module:
        """See `Family.new_text_tower`."""
        return TextTower(self.whole(config))


def _scale(weights: Weights) -> float:
    """Checkpoints that come from Flax, as clip-italian does, hold none; transformers then takes the initial one."""
    return weights.scalar("logit_scale") if "logit_scale" in weights.names else INITIAL_SCALE


def _is_as_drawn(weight: torch.Tensor) -> bool:
    """Whether a matrix looks like independent normal numbers of `INITIAL_STD`: mean, spread and tails."""
    values = weight.to(torch.float64).flatten() / INITIAL_STD
    spread = float(values.std())
    tails = float((values / spread).pow(4).mean())  # 3 for a normal distribution
    return abs(float(values.mean())) < NEAR and abs(spread - 1) < NEAR and abs(tails - 3) < 10 * NEAR


def _half(config: Any, directory: Path, side: str) -> Any:
    """transformers' model with one tower only.

    Raises:
        ModelError: the file lacks tensors of the tower, or has them in other shapes.
    """
    import transformers

    other = ("text_model", "text_projection") if side == "vision" else ("vision_model", "visual_projection")

    whole: Any = transformers.VisionTextDualEncoderModel

    class Half(whole):  # type: ignore[misc]
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            for name in other:
                delattr(self, name)

    model, seen = load_pretrained(
        Half, directory, dtype=torch.float32, name=f"the {side} tower of {whole.__name__}", config=config
    )
    missing = {*seen["missing_keys"], *(name for name, *_ in seen["mismatched_keys"])}
    if missing:
        raise ModelError(f"{directory} lacks {few(missing)}; the weights do not fit config.json beside them")
    return model
