"""Safetensors into torch modules: only the tensors a module needs, checked name by name, as float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lance_align.errors import ModelError, few

_FLOATS = ("F16", "BF16", "F32", "F64")  # as a header names them


class Weights:
    """One safetensors file. Opening it reads the header alone.

    Args:
        path: the file.

    Raises:
        ModelError: not a safetensors file, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.names: frozenset[str] = frozenset(file.keys())

    def check_prefixes(self, *prefixes: str, model_class: str) -> None:
        """Refuse a file with tensors that belong to no part of the model: it is another model's.

        Args:
            prefixes: of the names of all tensors of the model.
            model_class: of the model, for the error.

        Raises:
            ModelError: names the first few.
        """
        foreign = sorted(name for name in self.names if not name.startswith(prefixes))
        if foreign:
            raise ModelError(f"{self.path} holds tensors that {model_class} does not have: {few(foreign)}")

    def scalar(self, name: str) -> float:
        """One number.

        Raises:
            ModelError: missing, or not a single number.
        """
        tensor = self.tensor(name)
        if tensor.numel() != 1:
            raise ModelError(f"{self.path}: {name!r} has shape {tuple(tensor.shape)}; expected one number")
        return float(tensor)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as it is in the file.

        Raises:
            ModelError: missing.
        """
        if name not in self.names:
            raise ModelError(f"{self.path} lacks {name!r}; save the whole model, not a part of it")
        with self._open() as file:
            found: torch.Tensor = file.get_tensor(name)
        return found

    def fill(self, module: nn.Module, *, unused: tuple[str, ...] = ()) -> None:
        """Copy the tensors of the same names into the module; floats of any width become the module's own.

        Args:
            module: its state dict names are the file's.
            unused: see `check`.

        Raises:
            ModelError: as `check`.
        """
        wanted = module.state_dict()
        names = self.check(module, unused=unused)
        with self._open() as file, torch.no_grad():
            for name in names:
                wanted[name].copy_(file.get_tensor(name))

    def check(self, module: nn.Module, *, unused: tuple[str, ...] = ()) -> list[str]:
        """Compare the file's header with what a module asks for; the module may be on the meta device.

        Args:
            module: see `fill`.
            unused: prefixes of tensors of the same part of the model that this module does without.

        Returns:
            The names of the tensors that it takes.

        Raises:
            ModelError: a tensor is missing, left over, or of another shape or a quantised type.
        """
        wanted = module.state_dict()
        parts = tuple({f"{name.partition('.')[0]}." for name in wanted})
        of_parts = {name for name in self.names if name in wanted or name.startswith(parts)}
        offered = {name for name in of_parts if not name.startswith(unused)}
        missing = sorted(name for name in wanted if name not in offered and not name.endswith(".num_batches_tracked"))
        if missing:
            raise ModelError(f"{self.path} lacks {few(missing)}; the weights do not fit config.json beside them")
        surplus = sorted(name for name in offered if name not in wanted)
        if surplus:
            raise ModelError(f"{self.path} has more than config.json asks for: {few(surplus)}")
        with self._open() as file:
            for name in sorted(offered):
                header = file.get_slice(name)
                self._compare(tuple(header.get_shape()), header.get_dtype(), wanted[name], name)
        return sorted(offered)

    def _compare(self, shape: tuple[int, ...], dtype: str, target: torch.Tensor, name: str) -> None:
        if shape != tuple(target.shape):
            raise ModelError(f"{self.path}: {name!r} has shape {shape}, config.json asks for {tuple(target.shape)}")
        if target.is_floating_point() and dtype not in _FLOATS:
            raise ModelError(f"{self.path}: {name!r} is {dtype}; expected float weights, not quantised ones")

    @contextmanager
    def _open(self) -> Iterator[Any]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt", device="cpu") as file:
                yield file
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{self.path} is not a readable safetensors file ({error}); fetch it again") from error
