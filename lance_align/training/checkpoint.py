"""The state of a run on disk: two sets of weights (safetensors), the optimiser (tensors only), step and time (JSON)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lance_align.errors import ArgumentError, JobError, LanceAlignError, ModelError

_FOLDER, _OLD, _NEW, _STATE = "checkpoint", "checkpoint.old", "checkpoint.new", "state.json"


@dataclasses.dataclass(slots=True)
class RunState:
    """What changes while a model is trained.

    Attributes:
        model: the weights that are trained.
        average: their moving average; `model` itself where none is kept.
        optimizer: with its moments.
        step: steps done.
        elapsed_s: seconds trained, pauses left out.
    """

    model: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0
    elapsed_s: float = 0.0

    def save(self, directory: Path) -> None:
        """Write beside the checkpoint before it, then change places: at any moment one of them is whole.

        Raises:
            JobError: the directory cannot be written.
        """
        with writing(directory):
            self._save(directory)

    def _save(self, directory: Path) -> None:
        new, current, old = (directory / name for name in (_NEW, _FOLDER, _OLD))
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_file(_tensors(self.model), new / "model.safetensors")
        save_file(_tensors(self.average), new / "average.safetensors")
        torch.save(self.optimizer.state_dict(), new / "optimizer.pt")
        numbers = {"step": self.step, "elapsed_s": self.elapsed_s}
        (new / _STATE).write_text(json.dumps(numbers), encoding="utf-8")
        for weights in new.glob("*.safetensors"):  # safetensors' own mode is 0600, whatever the umask
            shutil.copymode(new / _STATE, weights)
        if current.exists():
            shutil.rmtree(old, ignore_errors=True)
            current.rename(old)
        new.rename(current)
        shutil.rmtree(old, ignore_errors=True)

    def restore(self, directory: Path) -> bool:
        """Take over the checkpoint found in `directory`; False where there is none.

        Raises:
            ModelError: it is of another model, or damaged.
            ArgumentError: the device's memory is too small for it.
        """
        path = checkpoint_in(directory)
        if path is None:
            return False
        try:
            self.model.load_state_dict(load_file(path / "model.safetensors"))
            self.average.load_state_dict(load_file(path / "average.safetensors"))
            # On the CPU first: the device that wrote it may not be here, and every worker would fill that of the first.
            moments = torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu")
            self.optimizer.load_state_dict(moments)
            self.step, self.elapsed_s = done_in(path)
        except torch.OutOfMemoryError as error:
            raise ArgumentError(f"{path} does not fit the memory of the device; go on where there is more") from error
        except Exception as error:  # safetensors, torch and json each raise their own
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{path} cannot be continued ({type(error).__name__}: {reason}); it belongs to another model or is "
                "damaged: train into an empty directory"
            ) from error
        return True


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Say in a line that a directory cannot be written, as on a full disk.

    Raises:
        JobError: that.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save raises the second
        if isinstance(error, LanceAlignError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise JobError(
            f"{directory} cannot be written ({type(error).__name__}: {reason}); make room or mend it, and run the same "
            "command again to go on from the last checkpoint"
        ) from error


def checkpoint_in(directory: Path) -> Path | None:
    """The folder of the checkpoint that a run into `directory` goes on from; None for a run from the start."""
    return next((path for name in (_FOLDER, _OLD) if (path := directory / name).is_dir()), None)


def done_in(checkpoint: Path) -> tuple[int, float]:
    """Steps done and seconds trained, of a checkpoint as `checkpoint_in` finds it."""
    numbers = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    return int(numbers["step"]), float(numbers["elapsed_s"])


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().contiguous() for name, value in module.state_dict().items()}
