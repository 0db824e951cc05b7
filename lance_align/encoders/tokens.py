"""Texts to token ids, and ids to batches of similar length."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from lance_align.errors import MissingExtraError, ModelError

# A text is cut to this many characters a token before it is tokenised: a caption of 10 MB took 20 s and 2 GB.
CHARS_PER_TOKEN = 512
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model")


# What a tokenizer may lie in; transformers builds a fast one of all but SentencePiece files.
_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCEPIECE_FILES)


class Tokens:
    """A checkpoint's tokenizer, set up once to truncate and never to pad; safe to call from several threads.

    Args:
        directory: holds tokenizer.json, vocab.txt, vocab.json and merges.txt, or a SentencePiece model (SigLIP).
        max_tokens: longest result, special tokens included.

    Raises:
        ModelError: there is no tokenizer, or it is damaged.
        MissingExtraError: it is a SentencePiece model, and sentencepiece is not installed.
    """

    def __init__(self, directory: Path, *, max_tokens: int) -> None:
        from transformers import AutoTokenizer

        found = [name for name in _FILES if (directory / name).is_file()]
        if not found:
            raise ModelError(f"{directory} has no tokenizer.json; save the tokenizer beside the model")
        if found[0] in SENTENCEPIECE_FILES and find_spec("sentencepiece") is None:
            raise MissingExtraError("sentencepiece", "siglip")
        try:
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # tokenizers raises bare Exception for a damaged file
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"the tokenizer in {directory} cannot be read ({reason}); save it again") from error
        self.pad_id = int(tokenizer.pad_token_id or 0)
        self._max_tokens = max_tokens
        self.max_chars = CHARS_PER_TOKEN * max_tokens
        self._slow: Any = None if tokenizer.is_fast else tokenizer
        self._lock = threading.Lock()
        if self._slow is None:
            self._tokenizer: Any = tokenizer.backend_tokenizer
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_length=max_tokens)

    @property
    def backend(self) -> Any | None:
        """Of the library tokenizers; None where transformers' own Python does the work."""
        return None if self._slow is not None else self._tokenizer

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text with the special tokens of its kind, truncated."""
        cut = [text[: self.max_chars] for text in texts]
        if self._slow is None:
            return [encoding.ids for encoding in self._tokenizer.encode_batch(cut)]
        with self._lock:
            found: list[list[int]] = self._slow(cut, truncation=True, max_length=self._max_tokens)["input_ids"]
        return found


def batches_by_length(
    ids: Sequence[list[int]], *, pad_id: int, tokens_per_batch: int, length: int | None = None
) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Rows of similar length together, padded to the longest of the batch.

    Args:
        ids: of each row.
        pad_id: what is put behind them.
        tokens_per_batch: most of one batch, padding included.
        length: that all are padded to; None for the longest of the batch.

    Yields:
        the positions of the rows in `ids`, their ids and mask, both ``(n, length) int64``, where n x length is at most
        `tokens_per_batch`, or n is 1.
    """
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]), reverse=True)
    start = 0
    while start < len(order):
        width = length or len(ids[order[start]])
        rows = order[start : start + max(1, tokens_per_batch // max(1, width))]
        start += len(rows)
        padded = torch.full((len(rows), width), pad_id, dtype=torch.int64)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for position, row in enumerate(rows):
            count = len(ids[row])
            padded[position, :count] = torch.tensor(ids[row], dtype=torch.int64)
            mask[position, :count] = 1
        yield rows, padded, mask
