"""The number that cosines are divided by before the softmax, whichever way a family keeps it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Temperature:
    """A model's learnable temperature: ALIGN keeps the divisor, CLIP and its kin the logarithm of the factor.

    Args:
        model: a transformers model with a scalar parameter ``temperature`` or ``logit_scale``.
    """

    def __init__(self, model: Any) -> None:
        self._is_factor = hasattr(model, "logit_scale")
        self.parameter: nn.Parameter = model.logit_scale if self._is_factor else model.temperature

    def value(self) -> Tensor:
        """The divisor, a scalar with a gradient to the parameter."""
        return torch.exp(-self.parameter) if self._is_factor else self.parameter

    @torch.no_grad()
    def clamp(self, lowest: float, highest: float | None) -> None:
        """Bring the parameter to where the divisor lies within bounds; None leaves the upper end open."""
        if self._is_factor:
            bottom = None if highest is None else -math.log(highest)
            self.parameter.clamp_(min=bottom, max=-math.log(lowest))
        else:
            self.parameter.clamp_(min=lowest, max=highest)
