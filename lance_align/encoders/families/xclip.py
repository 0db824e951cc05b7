"""X-CLIP (arXiv 2208.02816): CLIP for videos, whose frames exchange messages.

In a table a text's vector is not conditioned on the video; the reranker gives the conditioned score.
"""

from __future__ import annotations

from typing import Any

import torch

from lance_align.encoders.families.clip import Clip
from lance_align.encoders.pixels import PixelTower
from lance_align.spec import ImageSpec


class XClip(Clip):
    """The picture is a video of as many frames as the configuration says."""

    model_class = "XCLIPModel"
    tensors = (*Clip.tensors, "mit.", "prompts_")
    processor = "VideoMAE"

    def frames(self, config: Any) -> int | None:
        """See `Family.frames`."""
        return int(config.vision_config.num_frames)

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`."""
        return VideoTower(self.whole(config), image, frames=int(config.vision_config.num_frames))


class VideoTower(PixelTower):
    """The vectors of the frames, integrated by a small transformer."""

    def __init__(self, model: Any, image: ImageSpec, *, frames: int) -> None:
        super().__init__(image)
        self.vision_model, self.visual_projection, self.mit = model.vision_model, model.visual_projection, model.mit
        self._frames = frames

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `PixelTower.features`."""
        states = self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)
        features: torch.Tensor = self.mit(states.unflatten(0, (-1, self._frames))).pooler_output
        return features
