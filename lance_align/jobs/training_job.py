"""What a training run is told, and what each of its processes does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lance_align.encoders import hub
from lance_align.encoders.checkpoints import resolve_spec
from lance_align.encoders.fingerprint import fingerprint
from lance_align.errors import ArgumentError, ModelError
from lance_align.fetching import NO_URLS, FetchPolicy
from lance_align.jobs.pairs import table_pairs
from lance_align.paths import expanded
from lance_align.training import LogLine, RowPairs, Trainable, Trainer, TrainOptions, load_trainable, pair_towers
from lance_align.training.workers import Workers

Tell = Callable[[LogLine | str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """What every worker of a run is told; small enough to send.

    Attributes:
        table: uri of a Lance table.
        image: its column of pictures: encoded, or paths below the folder of the table's database.
        text: its column of captions.
        out: directory of the model and the checkpoint; for several workers, one that all of them see.
        options: how to train.
        model: what to train further, as `load_trainable` takes; None to pair two towers.
        vision_model, text_model, projection_dim: what `pair_towers` takes, where `model` is None.
        held_out: rows to measure recall on and never to train on, nor on other rows of their pictures.
        version: of the table; None for the one that the run into `out` began with, or the latest.
        allow_outside: let image paths in the rows lead out of the folder of the table's database.
        fetching: hosts that image URLs in the rows are fetched from.
    """

    table: str
    image: str
    text: str
    out: Path
    options: TrainOptions
    model: str | None = None
    vision_model: str | None = None
    text_model: str | None = None
    projection_dim: int = 512
    held_out: int = 0
    version: int | None = None
    allow_outside: bool = False
    fetching: FetchPolicy = NO_URLS

    def __post_init__(self) -> None:
        towers = (self.vision_model, self.text_model)
        if (self.model is None) == (towers == (None, None)) or (self.model is None and None in towers):
            raise ArgumentError("give either a model to train further, or both vision_model and text_model")

    def load(self) -> Trainable:
        """The model before its first step.

        Raises:
            ModelError: it cannot be loaded.
        """
        if self.model is not None:
            return load_trainable(self.model)
        assert self.vision_model is not None
        assert self.text_model is not None
        return pair_towers(
            self.vision_model, self.text_model, projection_dim=self.projection_dim, seed=self.options.seed
        )

    def pairs(self, trainable: Trainable) -> tuple[RowPairs, RowPairs | None]:
        """What to train on and what to measure with; see `table_pairs`.

        Raises:
            SourceError: no such table, version or column.
        """
        geometry, seed = trainable.image, self.options.seed
        return table_pairs(
            self.table,
            self.image,
            self.text,
            geometry,
            version=self.version,
            held_out=self.held_out,
            seed=seed,
            allow_outside=self.allow_outside,
            fetching=self.fetching,
        )

    def terms(self) -> dict[str, Any]:
        """What a run into `out` keeps to its end: another model, table, choice of rows or loss is another run.

        Raises:
            ModelError: a model cannot be found.
        """
        models = {name: getattr(self, name) for name in ("model", "vision_model", "text_model")}
        return {
            **{name: None if value is None else _known(name, value) for name, value in models.items()},
            "projection_dim": self.projection_dim if self.model is None else None,
            "image": self.image,
            "text": self.text,
            "held_out": self.held_out,
            "version": self.version,
            **self.options.terms,
            "table": self.table,
        }

    def absolute(self) -> TrainJob:
        """The same from any working directory."""
        changes: dict[str, Any] = {"out": self.out.absolute()}
        if "://" not in self.table:
            changes["table"] = str(Path(self.table).absolute())
        for name in ("model", "vision_model", "text_model"):
            value = getattr(self, name)
            if value is not None and (path := expanded(value, ModelError)).is_dir():
                changes[name] = str(path.absolute())
        return dataclasses.replace(self, **changes)


def run_job(job: TrainJob, workers: Workers, tell: Tell) -> None:
    """One worker of a run, from the model to what is saved.

    Args:
        job: what and how.
        workers: this process among those of the run; the first alone saves the model.
        tell: is given each log line, and what is done before there are lines.
    """

    def say(text: str) -> None:
        if workers.rank == 0:
            tell(text)

    say("loading the model")
    trainable = job.load()
    pairs, held_out = job.pairs(trainable)
    trainer = Trainer(trainable, pairs, job.options, directory=job.out, held_out=held_out, report=tell, workers=workers)
    if trainer.step:
        say(f"going on from step {trainer.step:,}")
    elif held_out is not None:
        say(f"measuring recall on {held_out.count:,} held-out pairs before the first step")
    else:
        say("training")
    done = trainer.run()
    if workers.rank == 0:
        done.save(job.out)


def _known(kind: str, name: str) -> dict[str, str]:
    """A model's name, and the digest by which it is known again wherever it lies."""
    if kind == "model":
        return {"name": name, "fingerprint": resolve_spec(name).fingerprint}
    try:
        return {"name": name, "fingerprint": fingerprint(hub.find(name)[0])}
    except OSError as error:
        raise ModelError(f"model {name!r} cannot be read: {error}") from error
