"""What a step does beside the gradient: learning rate, weight decay groups, weight average, BatchNorm statistics."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def learning_rate(progress: float, *, peak: float, warmup_share: float) -> float:
    """Linear warm-up, then a cosine to zero (arXiv 1608.03983); `progress` is the share of the run done."""
    if progress < warmup_share:
        return peak * max(progress, 1e-3 * warmup_share) / warmup_share
    return peak * (1 + math.cos(math.pi * (progress - warmup_share) / (1 - warmup_share))) / 2


def parameter_groups(
    model: nn.Module, *, weight_decay: float, head: Container[str] = ()
) -> tuple[list[dict[str, object]], list[bool]]:
    """Parameters for AdamW: matrices and kernels decay; vectors and scalars (norms, biases, temperature) do not.

    Args:
        model: those of its parameters that need no gradient are left out.
        weight_decay: of matrices and kernels.
        head: names of parameters with a learning rate of their own.

    Returns:
        Groups with parameters in them, and whether each is of the head.
    """
    members: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members.setdefault((name in head, parameter.ndim > 1), []).append(parameter)
    ordered = sorted(members.items(), key=lambda item: item[0], reverse=True)  # a resumed run needs the same order
    groups: list[dict[str, object]] = [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0} for (_, decays), parameters in ordered
    ]
    return groups, [in_head for (in_head, _), _ in ordered]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move an exponential moving average of weights and running statistics one step towards `model`."""
    kept, new = list(average.state_dict().values()), list(model.state_dict().values())
    floats = [place for place, value in enumerate(kept) if value.is_floating_point()]
    torch._foreach_lerp_([kept[place] for place in floats], [new[place] for place in floats], 1 - decay)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm layer."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


def freeze_batch_norm(model: nn.Module) -> None:
    """Use the running statistics and leave them as they are; call it after each ``model.train()``."""
    for norm in batch_norms(model):
        norm.eval()


@torch.no_grad()
def renew_batch_norm(vision: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set running statistics to the plain mean over `batches` of ``(n, 3, height, width)`` model inputs.

    Averaged weights have other activations than the weights the statistics were gathered with.
    """
    norms = batch_norms(vision)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's name for a cumulative mean
    vision.train()
    for pixels in batches:
        vision(pixel_values=pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    vision.eval()


def keep_slow_kernels_in_float32(model: nn.Module) -> None:
    """Take strided and wide depthwise convolutions out of bfloat16 autocast, in place.

    Their bfloat16 backward pass has no fast CPU kernel: 105 ms against 17 ms in float32 for 256 maps of 128×16×16,
    stride 2, on two AVX512 cores (torch 2.13).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and (module.stride[0] > 1 or module.kernel_size[0] > 3):
            module.forward = _in_float32(module.forward)  # type: ignore[method-assign,assignment]


def _in_float32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def run(features: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(features.float())

    return run
