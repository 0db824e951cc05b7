"""What writes a column of texts about pictures: a model, what it is asked, and how it answers."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, get_args

from lance_align.errors import ModelError

Task = Literal["caption", "question", "instruction"]

# Longest side of what a model is shown. LLaVA 1.6 looks at 1,008 pixels on a side at most, LLaVA 1.5 at 336, BLIP at
# 384 and InstructBLIP at 224; a picture of 1,024 x 1,024 takes 3 MiB on its way there.
MAX_SIDE_PX = 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DescriberSpec:
    """Everything that decides a text, but for the picture and the columns that the prompt names.

    Attributes:
        name: a hub id, or the absolute path of a local directory.
        revision: the hub commit the weights came from; None for a directory.
        family: the kind of model, a key of the closed list in `lance_align.describers.loading`.
        task: what the model does: write a ``caption``, answer a ``question``, follow an ``instruction``.
        prompt: what it is asked, columns in braces; None for a caption without a beginning.
        max_new_tokens: where a text ends at the latest.
        temperature: 0 for the likeliest token each time; above it, tokens are drawn at random.
        seed: of that randomness.
        precision: what the model computes in; ``auto`` is bfloat16 on GPUs that can, else float32.
        max_side_px: larger pictures are reduced to this longest side before the model's own processor sees them.
        fingerprint: hex digest of weights, tokenizer and configuration.
    """

    name: str
    revision: str | None
    family: str
    task: Task
    prompt: str | None
    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    precision: str = "auto"
    max_side_px: int = MAX_SIDE_PX
    fingerprint: str

    def to_json(self) -> str:
        """The spec as one line of JSON with sorted keys; `from_json` gives an equal spec back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> DescriberSpec:
        """Read what `to_json` wrote.

        Raises:
            ModelError: the text is not JSON, or a field is missing, unknown or of the wrong type.
        """
        try:
            raw: Any = json.loads(text)
            spec = cls(**raw)
            _check(spec)
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(
                f"a describer's spec could not be read ({type(error).__name__}: {error}); expected the JSON that "
                "DescriberSpec.to_json writes: the table's metadata is damaged or comes from another version"
            ) from error
        return spec

    def differences(self, other: DescriberSpec) -> str:
        """What sets two specs of one column apart, for an error; empty where they write the same texts.

        A model is its fingerprint: where it lies and what it is called there do not matter.
        """
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("name", "revision")]
        unequal = [name for name in names if getattr(self, name) != getattr(other, name)]
        if "fingerprint" in unequal:
            unequal = ["name", *unequal]
        return ", ".join(f"{name} {getattr(self, name)!r} against {getattr(other, name)!r}" for name in unequal)


def _check(spec: DescriberSpec) -> None:
    texts = (spec.name, spec.family, spec.precision, spec.fingerprint)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("name, family, precision and fingerprint must be text")
    if not all(text is None or isinstance(text, str) for text in (spec.revision, spec.prompt)):
        raise TypeError("revision and prompt must be text or null")
    if spec.task not in get_args(Task):
        raise ValueError(f"task {spec.task!r} is none of {', '.join(get_args(Task))}")
    numbers = (spec.max_new_tokens, spec.max_side_px, spec.seed)
    if not all(type(number) is int for number in numbers) or not isinstance(spec.temperature, (int, float)):
        raise TypeError("max_new_tokens, max_side_px, seed and temperature must be numbers")
