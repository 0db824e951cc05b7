"""Lance tables of embeddings: where they lie, what their columns are, how rows get in, what is there already."""

from __future__ import annotations
