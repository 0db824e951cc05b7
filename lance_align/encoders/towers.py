"""The two towers of ALIGN as torch modules: uint8 pixels or token ids in, features out, not yet normalised.

Their state dict names are those of a transformers AlignModel checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lance_align.encoders.weights import Weights
from lance_align.errors import ModelError
from lance_align.spec import ImageSpec

VISION_PREFIX = "vision_model."
TEXT_PREFIXES = ("text_model.", "text_projection.")
# BERT's tanh pooler does not enter ALIGN's vector; the buffers were saved by transformers before 4.31.
_UNUSED_TEXT = ("text_model.pooler.", "text_model.embeddings.position_ids", "text_model.embeddings.token_type_ids")

# What shapes the network at inference; a checkpoint's other settings (dropout, output flags) must not reach it.
_BERT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)


class VisionTower(nn.Module):
    """uint8 pixels ``(n, height, width, 3)`` to features ``(n, dim) float32``."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, config: Any, image: ImageSpec) -> None:
        from transformers import AlignVisionModel

        super().__init__()
        self.vision_model = AlignVisionModel(config)
        if config.pooling_type not in ("mean", "max"):
            raise ModelError(f"pooling_type {config.pooling_type!r} is not known; expected 'mean' or 'max'")
        self.pool_max = config.pooling_type == "max"
        self.image = image
        self._dtype, self._memory_format = torch.float32, torch.contiguous_format
        self.register_buffer("scale", torch.tensor(image.scale), persistent=False)
        self.register_buffer("shift", torch.tensor(image.shift), persistent=False)

    def use(self, *, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
        """Compute in a type and an order of memory; pixels are scaled, and features averaged, in float32."""
        self._dtype, self._memory_format = dtype, memory_format
        loose: Any = self.vision_model  # torch's annotations leave memory_format out
        loose.to(dtype=dtype, memory_format=memory_format)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = torch.addcmul(self.shift, pixels.to(torch.float32), self.scale).permute(0, 3, 1, 2)
        scaled = scaled.to(self._dtype).contiguous(memory_format=self._memory_format)
        # Past the checkpoint's own pooler: AvgPool2d over a kernel larger than the map is refused by ONNX and OpenVINO,
        # and equals a mean over the map (to 6e-6).
        features: torch.Tensor = self.vision_model.encoder(self.vision_model.embeddings(scaled)).last_hidden_state
        features = features.to(torch.float32)
        return features.amax((2, 3)) if self.pool_max else features.mean((2, 3))


class TextTower(nn.Module):
    """Token ids and mask ``(n, length)`` to features ``(n, dim) float32``: a linear map of BERT's raw CLS state."""

    def __init__(self, config: Any, dim: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        settings: dict[str, Any] = {name: getattr(config, name) for name in _BERT_FIELDS}
        # ALIGN's own text class cannot use fused attention; BERT is the same network and can.
        settings["attn_implementation"] = "sdpa"
        self.text_model = BertModel(BertConfig(**settings), add_pooling_layer=False)
        self.text_projection = nn.Linear(config.hidden_size, dim)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features: torch.Tensor = self.text_projection(states[:, 0])
        return features.to(torch.float32)


def load_vision_tower(config: Any, image: ImageSpec, weights: Weights, device: torch.device) -> VisionTower:
    """The image tower in eval mode, from only its own tensors.

    Args:
        config: transformers' AlignConfig.

    Raises:
        ModelError: the weights do not fit the configuration, or the tower does not end in `projection_dim` channels.
    """
    with torch.device("meta"):
        tower = VisionTower(config.vision_config, image)
    blocks: Any = tower.vision_model.encoder.blocks
    last = blocks[-1].projection.project_conv.out_channels
    if last != config.projection_dim:
        raise ModelError(f"the image tower ends in {last} channels but projection_dim is {config.projection_dim}")
    tower.to_empty(device="cpu")
    tower.scale.copy_(torch.tensor(image.scale))  # not part of a checkpoint, so undefined until here
    tower.shift.copy_(torch.tensor(image.shift))
    weights.fill(tower)
    return tower.eval().requires_grad_(False).to(device)


def load_text_tower(config: Any, weights: Weights, device: torch.device) -> TextTower:
    """The text tower in eval mode, from only its own tensors; arguments and errors as `load_vision_tower`."""
    with torch.device("meta"):
        tower = TextTower(config.text_config, config.projection_dim)
    tower.to_empty(device="cpu")
    # Not part of a checkpoint, so the lines above left them undefined.
    embeddings = tower.text_model.embeddings
    embeddings.position_ids.copy_(torch.arange(embeddings.position_ids.shape[-1]).expand(1, -1))
    embeddings.token_type_ids.zero_()
    weights.fill(tower, unused=_UNUSED_TEXT)
    return tower.eval().requires_grad_(False).to(device)
