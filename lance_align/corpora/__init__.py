"""Demo corpora: drawn scenes with their ground truth, and the OpenMoji pictures."""

from __future__ import annotations
