"""X-CLIP (arXiv 2208.02816): CLIP for videos, whose frames exchange messages.

In a table a text's vector is not conditioned on the video; the reranker gives the conditioned score.
"""

from __future__ import annotations

from typing import Any

import torch

from lance_align.encoders.families.clip import Clip
from lance_align.encoders.pixels import PairTower, PixelTower
from lance_align.spec import ImageSpec


class XClip(Clip):
    """The picture is a video of as many frames as the configuration says."""

    config_class = "XCLIPConfig"
    model_class = "XCLIPModel"
    tensors = (*Clip.tensors, "mit.", "prompts_")
    processor = "VideoMAE"

    def frames(self, config: Any) -> int | None:
        """See `Family.frames`."""
        return int(config.vision_config.num_frames)

    def new_image_tower(self, config: Any, image: ImageSpec) -> PixelTower:
        """See `Family.new_image_tower`."""
        return VideoTower(self.whole(config), image, frames=int(config.vision_config.num_frames))

    def new_matcher(self, config: Any, image: ImageSpec) -> PairTower:
        """See `Family.new_matcher`."""
        return Matcher(self.whole(config), image, frames=int(config.vision_config.num_frames))


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


class Matcher(PairTower):
    """Token ids and mask ``(1, length)`` to the logit of the text, prompted by what is seen in each video."""

    def __init__(self, model: Any, image: ImageSpec, *, frames: int) -> None:
        super().__init__(image)
        self.vision_model, self.visual_projection, self.mit = model.vision_model, model.visual_projection, model.mit
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self.prompts_visual_layernorm = model.prompts_visual_layernorm
        self.prompts_visual_projection = model.prompts_visual_projection
        self.prompts_generator, self.logit_scale = model.prompts_generator, model.logit_scale
        self._frames = frames

    def pairs(self, pixels: torch.Tensor, *texts: torch.Tensor) -> torch.Tensor:
        """See `PairTower.pairs`: ``(n,)``; the steps of ``XCLIPModel.forward``."""
        input_ids, mask = texts
        seen = self.vision_model(pixel_values=pixels)
        states = self.visual_projection(seen.pooler_output).unflatten(0, (-1, self._frames))
        videos = self.mit(states).pooler_output  # (n, dim)
        patches = self.prompts_visual_layernorm(seen.last_hidden_state[:, 1:]) @ self.prompts_visual_projection
        patches = patches.unflatten(0, (-1, self._frames)).mean(1)  # (n, patches, dim)
        words = self.text_projection(self.text_model(input_ids=input_ids, attention_mask=mask).pooler_output)
        words = words.unsqueeze(0).expand(len(videos), -1, -1)  # (n, 1, dim)
        words = words + self.prompts_generator(words, patches)
        cosines = torch.nn.functional.cosine_similarity(videos.float(), words[:, 0].float())
        logits: torch.Tensor = cosines * self.logit_scale.float().exp()
        return logits
