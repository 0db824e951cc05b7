"""BLIP for retrieval (arXiv 2201.12086): the vectors of ``BlipForImageTextRetrieval``.

``BlipModel`` has projections too, but no published checkpoint holds their weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lance_align.encoders.base import Score
from lance_align.encoders.families.base import Family
from lance_align.encoders.pixels import PairTower, PixelTower
from lance_align.encoders.weights import Weights
from lance_align.spec import ImageSpec

# What training starts with (`temp` in salesforce/BLIP's models/blip_retrieval.py); checkpoints do not hold what it ends
# with. It shapes probabilities, no order and no vector.
TEMPERATURE = 0.07


class Blip(Family):
    """Vectors come from the first states of both towers; the head for matching is the reranker's."""

    config_class = "BlipConfig"
    model_class = "BlipForImageTextRetrieval"
    tensors = ("vision_model.", "vision_proj.", "text_encoder.", "text_proj.", "itm_head.")
    unused = ("text_encoder.embeddings.position_ids",)  # a buffer of old files
    processor = "Blip"

    def dim(self, config: Any) -> int:
        """See `Family.dim`."""
        return int(config.image_text_hidden_size)

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`."""
        return ImageTower(self.whole(config), image)

    def new_text_tower(self, config: Any) -> nn.Module:
        """See `Family.new_text_tower`."""
        return TextTower(self.whole(config))

    def new_matcher(self, config: Any, image: ImageSpec) -> PairTower:
        """See `Family.new_matcher`."""
        return Matcher(self.whole(config), image)

    def score(self, weights: Weights) -> Score:
        """See `Family.score`."""
        del weights
        return Score(temperature=TEMPERATURE)


class ImageTower(PixelTower):
    """The projected first state."""

    def __init__(self, model: Any, image: ImageSpec) -> None:
        super().__init__(image)
        self.vision_model, self.vision_proj = model.vision_model, model.vision_proj

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PixelTower.features`."""
        features: torch.Tensor = self.vision_proj(self.vision_model(pixel_values=pixels).last_hidden_state[:, 0])
        return features


class TextTower(nn.Module):
    """Token ids and mask ``(n, length)`` to features ``(n, dim) float32``: the projected first state."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.text_encoder, self.text_proj = model.text_encoder, model.text_proj

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features: torch.Tensor = self.text_proj(states[:, 0])
        return features.to(torch.float32)


class Matcher(PairTower):
    """The head for matching: token ids and mask ``(1, length)`` to the probability that text and picture match.

    The text encoder looks at all states of a picture through its cross-attention.
    """

    def __init__(self, model: Any, image: ImageSpec) -> None:
        super().__init__(image)
        self.vision_model, self.text_encoder, self.itm_head = model.vision_model, model.text_encoder, model.itm_head

    def pairs(self, pixels: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        """See `PairTower.pairs`: ``(n,)``, from 0 to 1."""
        input_ids, mask = (each.expand(len(pixels), -1) for each in texts)
        seen = self.vision_model(pixel_values=pixels).last_hidden_state
        states = self.text_encoder(
            input_ids=input_ids,
            attention_mask=mask,
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device),
        ).last_hidden_state
        logits: torch.Tensor = self.itm_head(states[:, 0]).to(torch.float32)
        return logits.softmax(1)[:, 1]  # of the classes: no match, match
