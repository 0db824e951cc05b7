"""Real checkpoints of describers for tests: the classes of transformers with two layers and random weights, saved."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = (
    "a an the of on in with and photo picture cat dog car red green blue small large table hill mountain river night "
    "two three children ball old house bright sky street tree what is this how many are there colour describe it user "
    "assistant : ? . yes no one man woman water snow"
)
CHAT = (
    "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def png(seed: int, *, width: int = 40, height: int = 30) -> bytes:
    """A picture of some large patches of colour, others for each seed."""
    patches = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(patches).resize((width, height), Image.Resampling.NEAREST).save(out, format="PNG")
    return out.getvalue()


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    letters = [chr(code) for code in range(97, 123)]
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={word: at for at, word in enumerate(dict.fromkeys([*entries, *WORDS.split()]))})


def _word_tokenizer(*, with_image: bool) -> Any:
    """Of a language model: words, ``<s>`` in front; InstructBLIP's processor adds the token of the picture itself."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    entries = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS.split()]
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(entries)}, unk_token="<unk>"))  # noqa: S106
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",  # noqa: S106
        eos_token="</s>",  # noqa: S106
        pad_token="<pad>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        padding_side="left",
        **({"extra_special_tokens": {"image_token": "<image>"}} if with_image else {}),
    )


def _drawn(model: Any, seed: int, *, head: Any, end: int) -> Any:
    """Weights large enough that pictures decide words; a new model's are so small that all its words are the same.

    Args:
        seed: one with which texts differ, and some end and some are cut.
        head: the part that turns states into words.
        end: the word that ends a text; some texts end early.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 1.5 / weight[0].numel() ** 0.5, generator=generator)
            elif "norm" not in name.lower():
                weight.normal_(0.0, 0.1, generator=generator)
        head.weight[end] *= 3.0
    return model.eval()


def blip(directory: Path, *, question: bool = False) -> Path:
    """BLIP for captions or for questions."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipForQuestionAnswering,
        BlipImageProcessorPil,
        BlipProcessor,
    )

    tokenizer = _bert_tokenizer()
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "max_position_embeddings": 64,
        "bos_token_id": 5,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=16, image_text_hidden_size=16)
    model = (BlipForQuestionAnswering if question else BlipForConditionalGeneration)(config)
    _drawn(model, 10 if question else 7, head=model.text_decoder.get_output_embeddings(), end=3).save_pretrained(
        directory
    )
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(directory)
    return directory


def instructblip(directory: Path) -> Path:
    """InstructBLIP with a language model that continues its prompt (OPT, in Vicuna's place)."""
    from transformers import (
        BlipImageProcessorPil,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
        OPTConfig,
    )

    words, bert = _word_tokenizer(with_image=False), _bert_tokenizer()
    text = OPTConfig(
        vocab_size=len(words),
        hidden_size=32,
        word_embed_proj_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    qformer = {**LAYERS, "vocab_size": len(bert), "max_position_embeddings": 32, "encoder_hidden_size": 32}
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=qformer, text_config=text, num_query_tokens=4, image_token_index=4
    )
    model = InstructBlipForConditionalGeneration(config)
    _drawn(model, 7, head=model.language_model.get_output_embeddings(), end=2).save_pretrained(directory)
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    InstructBlipProcessor(images, words, bert, num_query_tokens=4).save_pretrained(directory)
    return directory


def llava(directory: Path, *, shards: bool = False, chat_template: str | None = CHAT) -> Path:
    """LLaVA 1.5: CLIP's image tower before Llama."""
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    model = LlavaForConditionalGeneration(LlavaConfig(**_clip_and_llama()))
    return _saved(model, LlavaProcessor, images, directory, shards=shards, chat_template=chat_template)


def llava_next(directory: Path) -> Path:
    """LLaVA 1.6: the same, looking at tiles of a picture as well, as many as its form asks for."""
    from transformers import (
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    grid = [[32, 64], [64, 32], [64, 64]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    model = LlavaNextForConditionalGeneration(LlavaNextConfig(**_clip_and_llama(), image_grid_pinpoints=grid))
    return _saved(model, LlavaNextProcessor, images, directory)


def _clip_and_llama() -> dict[str, Any]:
    from transformers import CLIPVisionConfig, LlamaConfig

    text = LlamaConfig(
        vocab_size=len(_word_tokenizer(with_image=True)),
        **LAYERS,
        num_key_value_heads=4,
        max_position_embeddings=96,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    vision = CLIPVisionConfig(**VISION, projection_dim=16)
    return {"vision_config": vision, "text_config": text, "image_token_index": 4, "vision_feature_layer": -1}


def _saved(
    model: Any,
    processor: Any,
    images: Any,
    directory: Path,
    *,
    shards: bool = False,
    chat_template: str | None = CHAT,
) -> Path:
    _drawn(model, 4, head=model.get_output_embeddings(), end=2)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(directory, **({"max_shard_size": "60KB"} if shards else {}))
    processor(
        images,
        _word_tokenizer(with_image=True),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(directory)
    return directory
