"""align-tiny: its configuration, its tokenizer, weights that can learn, and what they learn from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import AlignConfig, AlignModel, AlignTextConfig, AlignVisionConfig, PreTrainedTokenizerFast

from lance_align.spec import ImageSpec
from lance_align.training.artwork import read_artwork
from lance_align.training.pairs import MixedPairs, PairSource
from lance_align.training.sources import EmojiPairs, draw_scene_pairs, recipe_texts
from lance_align.training.trainable import Trainable

SIDE_PX = 64
DIM = 256
MAX_TOKENS = 64
MAX_WORDS = 8000
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PUNCTUATION = '[,:;.!?()\\[\\]"“”„]'
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"
_ENDINGS = ("s", "es", "ed", "ing", "er", "ly")


def align_tiny(artwork: Path, *, scenes: int, seed: int) -> tuple[Trainable, PairSource]:
    """The model before its first step, and what it is trained on: half emoji and half scenes in each batch.

    Args:
        artwork: the folder given to ``npm install --prefix``.
        scenes: how many scenes to draw and keep in memory, 12 kB each.
        seed: of the scenes and of the first weights.

    Raises:
        SourceError: the artwork is not there.
    """
    emoji = EmojiPairs(read_artwork(artwork), SIDE_PX)
    drawn = draw_scene_pairs(seed=seed, count=scenes, side_px=SIDE_PX)
    tokenizer = build_tokenizer(recipe_texts(emoji, drawn))
    model = build_model(tiny_config(vocabulary_size=len(tokenizer)), seed=seed)
    image = ImageSpec(resize=(SIDE_PX, SIDE_PX), crop=(SIDE_PX, SIDE_PX))
    return Trainable(model, tokenizer, image, MAX_TOKENS), MixedPairs((emoji, drawn), (0.5, 0.5))


def tiny_config(*, vocabulary_size: int) -> AlignConfig:
    """An ALIGN of about 3 M parameters for 64-pixel pictures.

    The last map is 4×4. BatchNorm momentum is PyTorch's (share of the new batch), where the class default 0.99 would
    forget the running statistics at each step; drop-connect is off because transformers applies it to single elements.
    """
    vision = AlignVisionConfig(
        image_size=SIDE_PX,
        width_coefficient=0.5,  # of the channels below and of the stem's 32
        depth_coefficient=1.0,
        kernel_sizes=[3, 3, 3, 3, 3],
        in_channels=[32, 32, 64, 128, 256],
        out_channels=[32, 64, 128, 256, 2 * DIM],
        strides=[1, 2, 2, 2, 1],
        num_block_repeats=[1, 1, 3, 4, 1],
        expand_ratios=[1, 2, 4, 6, 6],
        hidden_dim=DIM,
        batch_norm_momentum=0.05,
        drop_connect_rate=0.0,
    )
    text = AlignTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=6,
        intermediate_size=512,
        max_position_embeddings=MAX_TOKENS,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.0,
    )
    return AlignConfig(
        vision_config=vision.to_dict(), text_config=text.to_dict(), projection_dim=DIM, temperature_init_value=0.07
    )


def build_model(config: AlignConfig, *, seed: int) -> AlignModel:
    """A model with weights that can learn: transformers' own initialisation lets the vision tower underflow to zero.

    Convolutions follow He et al. 2015 (arXiv 1502.01852, fan out); a squeeze-and-excite gate opens at one half.
    """
    torch.manual_seed(seed)
    model = AlignModel(config)
    for module in model.vision_model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(model.text_projection.weight, std=model.text_embed_dim**-0.5)
    nn.init.zeros_(model.text_projection.bias)
    return model


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A lower-case WordPiece tokenizer whose vocabulary is the words of `texts`, the commonest first.

    A word that is a shorter word and an ending falls apart ("cars" is "car", "##s"), so that endings are learnt; words
    that do not occur fall apart into such pieces and letters. (tokenizers' own trainer orders ties differently in each
    process, and a resumed run must have the tokenizer it began with.)
    """
    plain = _word_pieces({token: place for place, token in enumerate(_SPECIAL)})
    counts = Counter(word for text in texts for word in _split(plain, text))
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    whole = [word for word in words if not _is_inflected(word, counts)][:MAX_WORDS]
    pieces = [*_SPECIAL, *whole, *_LETTERS, *(f"##{piece}" for piece in (*_ENDINGS, *_LETTERS))]
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(pieces))}
    tokenizer = _word_pieces(vocabulary)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]",  # noqa: S106
    )


def _split(tokenizer: Tokenizer, text: str) -> list[str]:
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    assert normalizer is not None
    assert pre_tokenizer is not None
    return [word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))]


def _is_inflected(word: str, known: Mapping[str, int]) -> bool:
    stems = (word.removesuffix(ending) for ending in _ENDINGS if word.endswith(ending))
    return any(len(stem) > 2 and stem in known for stem in stems)


def _word_pieces(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    # Lists of emoji names differ in punctuation ("person: bald", "person bald"); meaning does not.
    blank = normalizers.Replace(Regex(_PUNCTUATION), " ")
    tokenizer.normalizer = normalizers.Sequence([blank, normalizers.BertNormalizer(lowercase=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
