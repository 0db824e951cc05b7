"""What the families share: pictures and prompts to batches without padding, and a model's tokens to texts."""

from __future__ import annotations

import dataclasses
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lance_align import images as image_door
from lance_align.describers.base import Describer, Descriptions, said
from lance_align.describers.loading import load_config, load_model, load_processor
from lance_align.describers.prompts import Prompt
from lance_align.describers.sampling import RowNoise, row_seed
from lance_align.describers.spec import MAX_SIDE_PX, DescriberSpec
from lance_align.encoders.base import as_list
from lance_align.encoders.devices import device_name, full_precision, precision_name, resolve_device, resolve_dtype
from lance_align.errors import ArgumentError, ModelError, RowError
from lance_align.images import ImageInput

# Prepared at once. A job gives fewer where memory ran out.
ROWS_PER_PASS = 32
# A checkpoint's own settings of how tokens are drawn and where a text ends; the spec's stand in their place.
_OVERRULED = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "max_length",
    "num_return_sequences",
    "return_dict_in_generate",
)

# Heights and widths, in sixteenths of the longest side, of pictures that a prompt is tried with: some models give a
# picture more tokens the larger it is, or by its form.
_TRIED = ((16, 16), (1, 1), (8, 16), (16, 8))
_ADVICE = {  # by kind of what every row would have as its reason
    "type": "write only what is asked, for the model's own template says where the picture and the turns stand",
    "too_large": "shorten the prompt, or give fewer max_new_tokens",
}

Inputs = dict[str, torch.Tensor]  # a processor's, of one row; the first dimension is the batch's


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model and its processor on a device; one thread at a time has its turn.

    `model` is None where only prompts are looked at; `config` is its configuration all the same.
    """

    model: Any
    config: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype
    turn: threading.Lock = dataclasses.field(default_factory=threading.Lock)


class Generator(Describer):
    """A model of transformers that writes tokens.

    Rows share a batch where all their inputs have the same shapes, and nothing is padded: a padded question changes
    BLIP's answer (its decoder attends to the padding; transformers 5.23), and other models' in the last bits.

    Args:
        spec: what `resolve_describer` says of a checkpoint.
        loaded: that checkpoint.
    """

    def __init__(self, spec: DescriberSpec, loaded: Loaded) -> None:
        self.spec = spec
        self.model, self.config, self.processor = loaded.model, loaded.config, loaded.processor
        self.device, self.dtype, self._turn = loaded.device, loaded.dtype, loaded.turn
        # "<image>" in a row's column would stand for a second picture.
        added = self.processor.tokenizer.added_tokens_decoder.values()
        self._control = tuple(token.content for token in added if token.special)
        for name in _OVERRULED if self.model is not None else ():
            setattr(self.writer.generation_config, name, None)

    @classmethod
    def load(cls, spec: DescriberSpec, directory: Path, *, device: str) -> Loaded:
        """The checkpoint of a spec, for any number of describers.

        Raises:
            ModelError: see `lance_align.describers.loading`.
        """
        place = resolve_device(device)
        dtype = resolve_dtype(spec.precision, place)  # type: ignore[arg-type]
        model_class, processor_class = cls.classes(spec)
        processor = load_processor(processor_class, directory)
        model = load_model(model_class, directory, dtype=dtype).to(place)
        return Loaded(model=model, config=model.config, processor=processor, device=place, dtype=dtype)

    @classmethod
    def check(cls, spec: DescriberSpec, directory: Path) -> None:
        """Refuse a prompt that no row can be asked, by processor and configuration: no weights are read.

        Raises:
            ArgumentError: it holds a token of control, or is too long even where the columns that it names are empty.
            ModelError: the processor is unusable, or takes no picture beside the prompt.
        """
        model_class, processor_class = cls.classes(spec)
        loaded = Loaded(
            model=None,
            config=load_config(model_class, directory),
            processor=load_processor(processor_class, directory),
            device=torch.device("cpu"),
            dtype=torch.float32,
        )
        cls(spec, loaded)._check_prompt()

    def _check_prompt(self) -> None:
        prompt = None if self.spec.prompt is None else Prompt(self.spec.prompt)
        shortest = None if prompt is None else prompt.fill(dict.fromkeys(prompt.columns, ""))
        found: Exception | None = None
        for share in _TRIED:
            height, width = (max(1, side * min(self.spec.max_side_px, MAX_SIDE_PX) // 16) for side in share)
            try:
                self._prepared(np.zeros((height, width, 3), np.uint8), shortest)
                return
            except Exception as error:  # noqa: BLE001  of processors, and of templates that checkpoints bring
                found = error if found is None else found
        if isinstance(found, RowError):
            advice = _ADVICE.get(found.kind, "ask something else")
            raise ArgumentError(f"no row can be described: {found.detail}; {advice}") from found
        reason = " ".join(str(found).split())[:200]
        raise ModelError(
            f"model {self.spec.name!r} cannot be asked {self.spec.prompt!r:.80} ({type(found).__name__}: {reason})"
        ) from found

    @property
    def choices(self) -> Mapping[str, str | int]:
        """See `Describer.choices`."""
        threads, precision = torch.get_num_threads(), precision_name(self.dtype)
        return {"threads": threads, "device": device_name(self.device), "precision": precision}

    @staticmethod
    @abstractmethod
    def classes(spec: DescriberSpec) -> tuple[Any, Any]:
        """Transformers' classes of the model and of its processor."""

    @property
    def writer(self) -> Any:
        """The part of the model that writes."""
        return self.model

    @abstractmethod
    def inputs(self, picture: Any, prompt: str | None) -> Inputs:
        """What the model takes for one Pillow image."""

    @abstractmethod
    def lengths(self, inputs: Inputs) -> Iterator[tuple[int, int | None]]:
        """Tokens that a part of the model would hold, and how many it can; None for any number."""

    @abstractmethod
    def prompt_tokens(self, inputs: Inputs) -> int:
        """How many tokens stand before the new ones in what the model gives."""

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a text."""
        found = self.writer.generation_config.eos_token_id
        return frozenset(found if isinstance(found, list) else () if found is None else (found,))

    def text_ids(self, tokens: list[int], start: int, end: int) -> list[int]:
        """Which of a row's tokens are its text: of those from `start` to `end`, the new ones."""
        return tokens[start:end]

    def describe(
        self, images: Sequence[ImageInput | None], prompts: Sequence[str | None] | None = None
    ) -> Descriptions:
        """See `Describer.describe`."""
        images = as_list(images, "images")
        if prompts is not None:
            prompts = as_list(prompts, "prompts")
        if prompts is None:
            if self.spec.prompt is not None and Prompt(self.spec.prompt).columns:
                raise ArgumentError(f"the prompt {self.spec.prompt!r} names columns; give one prompt for each image")
            filled = Prompt(self.spec.prompt).fill({}) if self.spec.prompt is not None else None
            prompts = [filled] * len(images)
        if len(prompts) != len(images):
            raise ArgumentError(f"{len(images)} images but {len(prompts)} prompts; expected one for each")
        with self._turn:
            texts: list[str | None] = []
            reasons: list[str | None] = []
            for start in range(0, len(images), ROWS_PER_PASS):
                end = start + ROWS_PER_PASS
                for text, reason in self._pass(images[start:end], prompts[start:end]):
                    texts.append(text)
                    reasons.append(reason)
        return Descriptions(tuple(texts), tuple(reasons))

    def _pass(
        self, images: Sequence[ImageInput | None], prompts: Sequence[str | None]
    ) -> list[tuple[str | None, str | None]]:
        found: list[tuple[str | None, str | None]] = [(None, None)] * len(images)
        alike: dict[tuple[Any, ...], list[tuple[int, Inputs, int]]] = {}
        for row, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            try:
                inputs, seed = self._prepared(image, prompt)
            except RowError as error:
                found[row] = (None, str(error))
                continue
            shapes = tuple((name, tuple(value.shape)) for name, value in sorted(inputs.items()))
            alike.setdefault(shapes, []).append((row, inputs, seed))
        for rows in alike.values():
            written = self._written([inputs for _, inputs, _ in rows], [seed for _, _, seed in rows])
            for (row, _, _), text in zip(rows, written, strict=True):
                found[row] = text
        return found

    def _prepared(self, image: ImageInput | None, prompt: str | None) -> tuple[Inputs, int]:
        if image is None:
            raise RowError("null", "no image")
        control = next((token for token in self._control if token in (prompt or "")), None)
        if control is not None:
            raise RowError("type", f"the prompt holds {control!r}, which the model reads as a token of control")
        picture = image_door.picture(image, max_side_px=self.spec.max_side_px)
        inputs = self.inputs(picture, prompt)
        for tokens, most in self.lengths(inputs):
            # On CUDA a position too many ends the process's use of the device.
            if most is not None and tokens > most:
                raise RowError(
                    "too_large",
                    f"the prompt and max_new_tokens={self.spec.max_new_tokens} take {tokens} tokens of {most}",
                )
        drawn = self.spec.temperature > 0
        return inputs, row_seed(self.spec.seed, prompt or "", picture.tobytes()) if drawn else 0

    @torch.inference_mode()
    def _written(self, rows: Sequence[Inputs], seeds: Sequence[int]) -> list[tuple[str | None, str | None]]:
        batch = {name: torch.cat([inputs[name] for inputs in rows]) for name in rows[0]}
        moved = {name: self._moved(value) for name, value in batch.items()}
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "max_new_tokens": self.spec.max_new_tokens}
        if self.spec.temperature > 0:
            options["logits_processor"] = [RowNoise(seeds, temperature=self.spec.temperature)]
        with full_precision(self.device):
            tokens: list[list[int]] = self.model.generate(**moved, **options).tolist()
        start = self.prompt_tokens(rows[0])
        return [self._text(each, start) for each in tokens]

    def _moved(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)

    def _text(self, tokens: list[int], start: int) -> tuple[str | None, str | None]:
        """A row's text: up to the first token that ends it, for rows that end early are filled up."""
        ends = self.ends
        end = next((at for at in range(start, len(tokens)) if tokens[at] in ends), None)
        ids = self.text_ids(tokens, start, len(tokens) if end is None else end)
        text = self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        return said(text, is_cut=end is None, max_new_tokens=self.spec.max_new_tokens)
