"""Every public name has an example in its docstring, and every example runs.

What they are given: `lance_align`; `table`, a table of 60 emoji, which is ``demo`` of ``./lancedb``; `picture`, the
bytes of an image; and a folder ``photos`` with three images. Published checkpoints have small ones' names.
"""

from __future__ import annotations

import doctest
import inspect
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import pytest

import lance_align
from lance_align.corpora import demo_source
from tests import describer_models
from tests.corpus import png
from tests.family_models import save_family

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
EXPLORE = [f"explore.{name}" for name in lance_align.explore.__all__]
NAMES = [name for name in [*lance_align.__all__, *EXPLORE] if name != "__version__"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    source = demo_source("openmoji", directory=folder / "source", rows=60)
    lance_align.embed(source, db=folder / "lancedb", table="demo", model="align-tiny", executor="local", progress=False)
    (folder / "photos").mkdir()
    for number in range(3):
        (folder / "photos" / f"{number}.png").write_bytes(png(number))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "Salesforce/blip-itm-base-coco": save_family("blip", folder / "blip"),
        "nvidia/groupvit-gcc-yfcc": save_family("groupvit", folder / "groupvit"),
        "Salesforce/blip-image-captioning-base": describer_models.blip(folder / "captions"),
    }


def docstrings(name: str) -> Iterator[str]:
    """Its own, and those of a class's public methods."""
    value: Any = lance_align
    for part in name.split("."):
        value = getattr(value, part)
    yield inspect.getdoc(value) or ""
    if inspect.isclass(value):
        methods = [method for called, method in vars(value).items() if not called.startswith("_")]
        yield from (inspect.getdoc(method) or "" for method in methods)


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(
    name: str, world: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world / "lancedb", tmp_path / "lancedb")
    shutil.copytree(world / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    own, *others = docstrings(name)
    assert ">>> " in own, f"{name} has no example"
    said = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for text in (own, *others):
        for published, small in models.items():
            text = text.replace(published, str(small))
        table = lancedb.connect("./lancedb").open_table("demo")
        names = {"lance_align": lance_align, "table": table, "picture": table.search().limit(1).to_list()[0]["image"]}
        runner.run(doctest.DocTestParser().get_doctest(text, names, name, None, None), out=said.write)
    assert runner.summarize(verbose=False).failed == 0, said.getvalue()
