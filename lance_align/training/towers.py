"""A model's two towers as the loop uses them: a batch in, two sets of features out; what is frozen, and what learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lance_align.errors import ArgumentError
from lance_align.training.optim import batch_norms, freeze_batch_norm
from lance_align.training.options import TrainOptions
from lance_align.training.pairs import Batch
from lance_align.training.trainable import Trainable

TOWERS = ("vision_model", "text_model")  # the names of all families; what lies outside is the head


class Towers:
    """A model, and how its inputs are made.

    Args:
        trainable: tokenizer, pictures and texts of the model.
        model: its model or a copy of it, on the device where it computes.
        options: what is frozen, and the precision.
    """

    def __init__(self, trainable: Trainable, model: Any, options: TrainOptions) -> None:
        self.model = model
        self._trainable, self._options = trainable, options
        self.device: torch.device = next(model.parameters()).device
        self._scale = torch.tensor(trainable.image.scale, device=self.device)[:, None, None]
        self._shift = torch.tensor(trainable.image.shift, device=self.device)[:, None, None]
        self._frozen = [
            getattr(model, tower)
            for tower, frozen in zip(TOWERS, (options.freeze_image_tower, options.freeze_text_tower), strict=True)
            if frozen
        ]

    @property
    def normalises_batches(self) -> bool:
        """Whether a vector depends on the other pictures of the batch in training: BatchNorm that learns."""
        if self._options.freeze_batch_norm:
            return False
        still = {id(norm) for tower in self._frozen for norm in batch_norms(tower)}
        return any(id(norm) not in still for norm in batch_norms(self.model))

    def head(self) -> set[str]:
        """Names of the parameters that no checkpoint of a single tower has, or that this one lacked."""
        names = {name for name, _ in self.model.named_parameters()}
        return {name for name in names if not name.startswith(TOWERS)} | (names & self._trainable.fresh)

    def prepare(self) -> None:
        """Freeze and set checkpointing of activations, as the options say.

        Raises:
            ArgumentError: no tower that is trained can recompute its activations.
        """
        head = self.head()
        for tower in self._frozen:
            for parameter in tower.parameters():
                parameter.requires_grad_(False)
        for name, parameter in self.model.named_parameters():
            if name in head:
                parameter.requires_grad_(True)
        if self._options.gradient_checkpointing:
            self._recompute_activations()

    def _recompute_activations(self) -> None:
        able = 0
        for name in TOWERS:
            tower: Any = getattr(self.model, name)
            if tower.supports_gradient_checkpointing and not any(tower is frozen for frozen in self._frozen):
                _recompute(tower)
                able += 1
        if not able:
            raise ArgumentError(
                "gradient_checkpointing: no tower that is trained can do it (ALIGN's image tower cannot); leave it "
                "out, and use pairs_per_pass to bound memory"
            )

    def train(self) -> None:
        """Training mode; frozen towers, and frozen BatchNorm, stay in evaluation mode."""
        self.model.train()
        for tower in self._frozen:
            tower.eval()
        if self._options.freeze_batch_norm:
            freeze_batch_norm(self.model)

    def pixels(self, batch: Batch) -> Tensor:
        """``(n, 3, height, width)`` as the image tower takes it."""
        pixels = batch.pixels.to(self.device).float() * self._scale + self._shift
        return pixels.contiguous(memory_format=torch.channels_last)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features of pictures and of texts, each ``(n, dim) float32`` of any norm."""
        if not len(batch):
            nothing = torch.zeros((0, int(self.model.config.projection_dim)), device=self.device)
            return nothing, nothing
        tokens = self._trainable.tokenizer(
            list(batch.texts), padding=True, truncation=True, max_length=self._trainable.max_tokens, return_tensors="pt"
        ).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._options.precision == "bfloat16"):
            images = self.model.get_image_features(pixel_values=self.pixels(batch)).pooler_output
            texts = self.model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
        return images.float(), texts.float()

    def parameters(self) -> list[nn.Parameter]:
        """Those that learn."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def _recompute(tower: Any) -> None:
    """Under its name of transformers 5.23, or the one before; not reentrant, as a frozen embedding has no gradient."""
    how = {"use_reentrant": False}
    if hasattr(tower, "activation_checkpointing_enable"):
        tower.activation_checkpointing_enable(how)
    else:
        tower.gradient_checkpointing_enable(how)
