"""GroupViT (arXiv 2202.11094): a vision transformer that groups the parts of a picture; see also `segment`."""

from __future__ import annotations

from typing import Any

import torch

from lance_align.encoders.families.clip import Clip
from lance_align.encoders.pixels import PairTower
from lance_align.spec import ImageSpec


class GroupVit(Clip):
    """Built like CLIP; its projections are two layers with a BatchNorm, which eval mode keeps from the batch."""

    config_class = "GroupViTConfig"
    model_class = "GroupViTModel"
    exact = True  # each patch goes to the group it fits best: in bfloat16 cosines fall to 0.84, whatever probes say

    def new_segmenter(self, config: Any, image: ImageSpec) -> PairTower:
        """See `Family.new_segmenter`."""
        return Segmenter(self.whole(config), image)


class Segmenter(PairTower):
    """Text vectors ``(labels, dim)`` of norm 1 to GroupViTModel's logits ``(n, labels, height, width)``."""

    def __init__(self, model: Any, image: ImageSpec) -> None:
        super().__init__(image)
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection
        self.logit_scale = model.logit_scale

    def pairs(self, pixels: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        """See `PairTower.pairs`."""
        from transformers.models.groupvit import modeling_groupvit

        grouping: Any = modeling_groupvit.get_grouping_from_attentions
        (labels,) = texts
        seen = self.vision_model(pixel_values=pixels, output_attentions=True)
        groups = self.visual_projection(seen.last_hidden_state.flatten(0, 1)).float()
        groups = torch.nn.functional.normalize(groups).reshape(len(pixels), -1, groups.shape[1])  # (n, groups, dim)
        maps: torch.Tensor = grouping([each.float() for each in seen.attentions], pixels.shape[2:])
        scale = self.logit_scale.float().exp()
        # (n, labels, groups) @ (n, groups, height x width); the model multiplies by its scale twice
        logits = (labels.float() @ groups.mT * scale) @ maps.flatten(2) * scale
        found: torch.Tensor = logits.reshape(*logits.shape[:2], *maps.shape[2:])
        return found
