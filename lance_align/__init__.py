"""Embed images and text on Ray into LanceDB tables that you search with words, pictures, or both.

Importing the package registers the LanceDB embedding function ``align``: at once, or when LanceDB is imported.
Everything else is imported at first use, so that the encoders work where neither LanceDB nor Ray is installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lance_align.registration import register_with_lancedb

if TYPE_CHECKING:
    from lance_align import explore as explore
    from lance_align.areas import add_areas as add_areas
    from lance_align.attaching import attach as attach
    from lance_align.encoders import allow_models as allow_models
    from lance_align.encoders import load_encoder as load_encoder
    from lance_align.encoders import resolve_spec as resolve_spec
    from lance_align.encoders.base import Embeddings as Embeddings
    from lance_align.encoders.base import Encoder as Encoder
    from lance_align.encoders.catalogue import KnownModel as KnownModel
    from lance_align.encoders.catalogue import known_models as known_models
    from lance_align.encoders.segmenting import Segmentation as Segmentation
    from lance_align.encoders.segmenting import segment as segment
    from lance_align.encoders.zero_shot import zero_shot as zero_shot
    from lance_align.errors import LanceAlignError as LanceAlignError
    from lance_align.evaluation import Evaluation as Evaluation
    from lance_align.evaluation import evaluate as evaluate
    from lance_align.functions import AlignFunction as AlignFunction
    from lance_align.indexing.building import build_index as build_index
    from lance_align.indexing.building import search_settings as search_settings
    from lance_align.jobs.backfill import backfill as backfill
    from lance_align.jobs.describe import describe as describe
    from lance_align.jobs.embed import embed as embed
    from lance_align.jobs.options import RunOptions as RunOptions
    from lance_align.jobs.report import JobReport as JobReport
    from lance_align.jobs.train import train as train
    from lance_align.jobs.training_report import TrainReport as TrainReport
    from lance_align.labels import add_labels as add_labels
    from lance_align.queries import Query as Query
    from lance_align.rerankers import MatchReranker as MatchReranker
    from lance_align.spec import ModelSpec as ModelSpec
    from lance_align.tables.index_report import IndexReport as IndexReport
    from lance_align.tables.orphans import CleanupReport as CleanupReport
    from lance_align.tables.orphans import cleanup as cleanup
    from lance_align.tables.search_settings import SearchSettings as SearchSettings
    from lance_align.verification import Verification as Verification
    from lance_align.verification import verify as verify
    from lance_align.warming import WarmUp as WarmUp
    from lance_align.warming import warm_up as warm_up

__version__ = "0.1.0"

_HOMES = {
    "AlignFunction": "lance_align.functions",
    "CleanupReport": "lance_align.tables.orphans",
    "Embeddings": "lance_align.encoders.base",
    "Encoder": "lance_align.encoders.base",
    "Evaluation": "lance_align.evaluation",
    "IndexReport": "lance_align.tables.index_report",
    "JobReport": "lance_align.jobs.report",
    "KnownModel": "lance_align.encoders.catalogue",
    "LanceAlignError": "lance_align.errors",
    "MatchReranker": "lance_align.rerankers",
    "ModelSpec": "lance_align.spec",
    "Query": "lance_align.queries",
    "SearchSettings": "lance_align.tables.search_settings",
    "RunOptions": "lance_align.jobs.options",
    "Segmentation": "lance_align.encoders.segmenting",
    "TrainReport": "lance_align.jobs.training_report",
    "Verification": "lance_align.verification",
    "WarmUp": "lance_align.warming",
    "add_areas": "lance_align.areas",
    "add_labels": "lance_align.labels",
    "allow_models": "lance_align.encoders",
    "attach": "lance_align.attaching",
    "backfill": "lance_align.jobs.backfill",
    "build_index": "lance_align.indexing.building",
    "cleanup": "lance_align.tables.orphans",
    "describe": "lance_align.jobs.describe",
    "embed": "lance_align.jobs.embed",
    "evaluate": "lance_align.evaluation",
    "explore": "lance_align.explore",
    "known_models": "lance_align.encoders.catalogue",
    "load_encoder": "lance_align.encoders",
    "resolve_spec": "lance_align.encoders",
    "search_settings": "lance_align.indexing.building",
    "segment": "lance_align.encoders.segmenting",
    "train": "lance_align.jobs.train",
    "verify": "lance_align.verification",
    "warm_up": "lance_align.warming",
    "zero_shot": "lance_align.encoders.zero_shot",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    value = home if home.__name__ == f"{__name__}.{name}" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_lancedb()
