"""BLIP (arXiv 2201.12086): captions, and short answers to questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lance_align.describers.generating import Generator, Inputs
from lance_align.describers.spec import DescriberSpec


class BlipDescriber(Generator):
    """A checkpoint of `BlipForConditionalGeneration`, whose prompt is a caption's beginning, or of
    `BlipForQuestionAnswering`, whose prompt is a question.
    """

    @staticmethod
    def classes(spec: DescriberSpec) -> tuple[Any, Any]:
        """See `Generator.classes`."""
        from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, BlipProcessor

        is_caption = spec.task == "caption"
        return (BlipForConditionalGeneration if is_caption else BlipForQuestionAnswering), BlipProcessor

    @property
    def writer(self) -> Any:
        """See `Generator.writer`."""
        return self.model.text_decoder

    def inputs(self, picture: Any, prompt: str | None) -> Inputs:
        """See `Generator.inputs`."""
        texts = {} if prompt is None else {"text": [prompt]}
        return dict(self.processor(images=[picture], **texts, return_tensors="pt"))

    def lengths(self, inputs: Inputs) -> Iterator[tuple[int, int | None]]:
        """See `Generator.lengths`."""
        most = self.config.text_config.max_position_embeddings
        asked = inputs["input_ids"].shape[1] if "input_ids" in inputs else 2
        if self.spec.task == "caption":
            yield asked - 1 + self.spec.max_new_tokens, most
        else:
            yield asked, most
            yield 1 + self.spec.max_new_tokens, most

    def prompt_tokens(self, inputs: Inputs) -> int:
        """See `Generator.prompt_tokens`; a caption goes on where its prompt ends, without the prompt's [SEP]."""
        return inputs["input_ids"].shape[1] - 1 if self.spec.task == "caption" and "input_ids" in inputs else 1

    @property
    def ends(self) -> frozenset[int]:
        """See `Generator.ends`; `generate` of both classes names this token."""
        return frozenset((self.config.text_config.sep_token_id,))

    def text_ids(self, tokens: list[int], start: int, end: int) -> list[int]:
        """See `Generator.text_ids`; a caption's beginning is part of it, but for the token [DEC] in front."""
        return tokens[1:end] if self.spec.task == "caption" else tokens[start:end]
