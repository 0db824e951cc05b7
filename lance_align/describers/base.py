"""The contract of every describer: pictures and prompts in, texts out, bad rows kept as rows."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

from lance_align.describers.spec import DescriberSpec
from lance_align.errors import RowError
from lance_align.images import ImageInput

CUT: Final = "cut"  # the kind of reason of a text that is there, but not whole


@dataclasses.dataclass(frozen=True, slots=True)
class Descriptions:
    """The texts of n pictures, in their order.

    Attributes:
        texts: one entry a picture; None where there is none.
        reasons: None where there is a whole text; ``"cut: detail"`` beside a text that ended at `max_new_tokens`; else
            why there is no text, as ``"kind: detail"`` of `RowError`.
    """

    texts: tuple[str | None, ...]
    reasons: tuple[str | None, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.reasons):
            raise ValueError(f"{len(self.texts)} texts but {len(self.reasons)} reasons")

    def __len__(self) -> int:
        return len(self.texts)


class Describer(ABC):
    """A loaded model and what it is asked. Calls of several threads take turns."""

    spec: DescriberSpec

    @property
    def choices(self) -> Mapping[str, str | int]:
        """What the model runs on: threads, device and precision, by the names of a job's options."""
        return {}

    @abstractmethod
    def describe(
        self, images: Sequence[ImageInput | None], prompts: Sequence[str | None] | None = None
    ) -> Descriptions:
        """Describe pictures; a text does not depend on what other pictures are given with its own.

        Args:
            images: of any form that `lance_align.images.load` takes; None and bad images become reasons.
            prompts: what is asked of each, `spec.prompt` filled in; None for `spec.prompt` as it stands.

        Raises:
            ArgumentError: one image or prompt where a list is expected, as many prompts as images are expected, or
                `spec.prompt` names columns and none are given.
        """


def said(text: str, *, is_cut: bool, max_new_tokens: int) -> tuple[str | None, str | None]:
    """A model's words and whether they were cut, as a text and a reason."""
    text = text.strip()
    if not text:
        return None, str(RowError("empty", "the model said nothing"))
    if is_cut:
        return text, str(RowError(CUT, f"the text ended at max_new_tokens={max_new_tokens}"))
    return text, None
