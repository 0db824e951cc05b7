"""GroupViT (arXiv 2202.11094): a vision transformer that groups the parts of a picture; see also `segment`."""

from __future__ import annotations

from lance_align.encoders.families.clip import Clip


class GroupVit(Clip):
    """Built like CLIP; its projections are two layers with a BatchNorm, which eval mode keeps from the batch."""

    model_class = "GroupViTModel"
