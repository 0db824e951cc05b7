"""InstructBLIP (arXiv 2305.06500): a Q-Former that reads the instruction too, and a language model (Vicuna or T5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lance_align.describers.generating import Generator, Inputs
from lance_align.describers.spec import DescriberSpec


class InstructBlipDescriber(Generator):
    """A checkpoint of `InstructBlipForConditionalGeneration`."""

    @staticmethod
    def classes(spec: DescriberSpec) -> tuple[Any, Any]:
        """See `Generator.classes`."""
        del spec  # one class of each
        from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

        return InstructBlipForConditionalGeneration, InstructBlipProcessor

    @property
    def writer(self) -> Any:
        """See `Generator.writer`."""
        return self.model.language_model

    def inputs(self, picture: Any, prompt: str | None) -> Inputs:
        """See `Generator.inputs`."""
        return dict(self.processor(images=[picture], text=[prompt], return_tensors="pt"))

    def lengths(self, inputs: Inputs) -> Iterator[tuple[int, int | None]]:
        """See `Generator.lengths`."""
        config = self.config
        yield inputs["qformer_input_ids"].shape[1], config.qformer_config.max_position_embeddings
        most = getattr(config.text_config, "max_position_embeddings", None)  # T5 has none
        yield inputs["input_ids"].shape[1] + self.spec.max_new_tokens, most

    def prompt_tokens(self, inputs: Inputs) -> int:
        """See `Generator.prompt_tokens`; T5 writes behind one token of its own."""
        return 1 if self.writer.config.is_encoder_decoder else inputs["input_ids"].shape[1]
