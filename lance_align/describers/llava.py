"""LLaVA (arXiv 2304.08485), and any other image-text-to-text model of transformers that has a chat template."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lance_align.describers.generating import Generator, Inputs
from lance_align.describers.spec import DescriberSpec
from lance_align.errors import ModelError


class LlavaDescriber(Generator):
    """A checkpoint whose processor renders a conversation: one turn of the user, the picture and then the prompt."""

    @staticmethod
    def classes(spec: DescriberSpec) -> tuple[Any, Any]:
        """See `Generator.classes`."""
        del spec  # one class of each
        from transformers import AutoModelForImageTextToText, AutoProcessor

        return AutoModelForImageTextToText, AutoProcessor

    def inputs(self, picture: Any, prompt: str | None) -> Inputs:
        """See `Generator.inputs`; the picture comes before the words."""
        if not getattr(self.processor, "chat_template", None):
            raise ModelError(f"model {self.spec.name!r} has no chat template, and so cannot be asked")
        content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
        found = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        return dict(found)

    def lengths(self, inputs: Inputs) -> Iterator[tuple[int, int | None]]:
        """See `Generator.lengths`."""
        text = self.config.get_text_config()
        yield inputs["input_ids"].shape[1] + self.spec.max_new_tokens, getattr(text, "max_position_embeddings", None)

    def prompt_tokens(self, inputs: Inputs) -> int:
        """See `Generator.prompt_tokens`."""
        return 1 if self.config.is_encoder_decoder else inputs["input_ids"].shape[1]
