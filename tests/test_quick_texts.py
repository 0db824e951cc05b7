"""A process that only asks texts takes the text tower from the cache, and imports neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pytest

import lance_align
from lance_align import embedding_function, load_encoder, resolve_spec
from lance_align.encoders import cache
from lance_align.encoders.engines import text
from lance_align.encoders.engines.store import VARIABLE
from lance_align.encoders.remembered import remembered
from lance_align.encoders.two_towers import TowerEncoder
from tests.corpus import parquet, pictures
from tests.family_models import save_family

pytest.importorskip("openvino")
SLOW = ("groupvit", "xclip", "blip", "vision-text-dual-encoder")
TEXTS = [
    "",
    "a",
    "two dogs",
    "ein grünes Haus 猫",
    "a red car " * 60,
    *(f"word {number} " * number for number in range(1, 9)),
]


def afresh(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As in a new process, with an empty cache."""
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setattr(cache, "_encoders", {})
    text.quick_encoder.cache_clear()
    embedding_function._load.cache_clear()
    embedding_function._fingerprint.cache_clear()
    remembered.clear()


@pytest.mark.parametrize("name", ["align", "clip", *[pytest.param(each, marks=pytest.mark.slow) for each in SLOW]])
def test_texts_have_the_vectors_of_torch(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    afresh(monkeypatch, tmp_path / "cache")
    model = save_family(name, tmp_path / name)
    encoder = load_encoder(model, device="cpu")
    assert text.quick_encoder(encoder.spec.fingerprint) is None
    expected = encoder.encode_texts(TEXTS)
    encoder.keep_text_tower()
    quick = text.quick_encoder(encoder.spec.fingerprint)
    assert quick is not None
    assert (quick.spec.dim, quick.spec.fingerprint, quick.score) == (
        encoder.spec.dim,
        encoder.spec.fingerprint,
        encoder.score,
    )
    for found in (quick.encode_texts(TEXTS).vectors, np.concatenate([quick.encode_texts([t]).vectors for t in TEXTS])):
        assert (found * expected.vectors).sum(axis=1).min() > 0.9999
    assert quick.encode_texts([None, "a"]).reasons == ("null: no text", None)
    assert len(quick.encode_texts([])) == 0


@pytest.mark.slow
def test_a_tokenizer_that_needs_transformers_leaves_all_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SigLIP's first tokenizer is a SentencePiece model."""
    afresh(monkeypatch, tmp_path / "cache")
    encoder = load_encoder(save_family("siglip", tmp_path / "siglip"), device="cpu")
    assert encoder.encode_texts(["a"]).reasons == (None,)
    encoder.keep_text_tower()
    assert text.quick_encoder(encoder.spec.fingerprint) is None


ASKED = """
import sys, lancedb, lance_align
table = lancedb.connect(sys.argv[1]).open_table("t")
rows = table.search("picture 3").limit(4).to_list()
print([row["id"] for row in rows])
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def test_a_first_query_imports_neither_torch_nor_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    afresh(monkeypatch, tmp_path / "cache")
    source = parquet(pictures(8), tmp_path / "in.parquet")
    lance_align.embed(source, db=tmp_path, table="t", model="align-tiny", progress=False)
    table = lancedb.connect(tmp_path).open_table("t")
    monkeypatch.setattr("lance_align.embedding_function._load", lambda *_: load_encoder("align-tiny", engine="torch"))
    expected = [row["id"] for row in table.search("picture 3").limit(4).to_list()]  # by torch, which keeps nothing
    command = [sys.executable, "-c", ASKED, str(tmp_path)]
    for modules in (["torch", "transformers"], []):  # the first one keeps the tower
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [str(expected), str(modules)]


@pytest.mark.slow  # three processes
def test_a_damaged_tower_is_kept_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    afresh(monkeypatch, tmp_path / "cache")
    source = parquet(pictures(8), tmp_path / "in.parquet")
    lance_align.embed(source, db=tmp_path, table="t", model="align-tiny", progress=False)
    lancedb.connect(tmp_path).open_table("t").search("picture 3").limit(4).to_list()
    for file in (tmp_path / "cache" / "texts").rglob("text.bin"):
        file.write_bytes(file.read_bytes()[:-64])
    command = [sys.executable, "-c", ASKED, str(tmp_path)]
    for modules in (["torch", "transformers"], []):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[1] == str(modules)


def test_other_weights_than_the_tables_are_refused_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    afresh(monkeypatch, tmp_path / "cache")
    model = save_family("clip", tmp_path / "model")
    lance_align.allow_models(model)
    table = lancedb.connect(tmp_path).create_table("t", pictures(3))
    lance_align.attach(table, image="image", model=str(model))
    table.search("a").limit(1).to_list()
    assert text.quick_encoder(resolve_spec(str(model)).fingerprint) is not None
    save_family("clip", model, seed=5)
    afresh(monkeypatch, tmp_path / "cache")
    with pytest.raises(lance_align.LanceAlignError, match="fingerprint"):
        table.search("a").limit(1).to_list()


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_server_answers_with_the_kept_tower(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that kept it, and that has the image tower in memory; torch takes twice as long for a text."""
    afresh(monkeypatch, tmp_path / "cache")
    model = save_family("clip", tmp_path / "model")
    lance_align.allow_models(model)
    function = lance_align.AlignFunction.create(name=str(model), device=device)
    function.encoder().encode_pixels(np.zeros((1, *function.encoder().spec.image.shape), np.uint8))
    expected = load_encoder(model, device="cpu", engine="torch").encode_texts(TEXTS).vectors
    for words, vector in zip(TEXTS, expected, strict=True):
        assert function.compute_query_embeddings(words)[0] @ vector > 0.9999
    encoder = function.encoder()
    assert isinstance(encoder, TowerEncoder)
    assert encoder.loaded_towers == {"image"}


def test_warming_up_takes_the_kept_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    afresh(monkeypatch, tmp_path / "cache")
    lance_align.embed(parquet(pictures(8), tmp_path / "in.parquet"), db=tmp_path, table="t", model="align-tiny")
    warm = "import sys, lancedb, lance_align\nlance_align.warm_up(lancedb.connect(sys.argv[1]).open_table('t'))\n"
    command = [sys.executable, "-c", f"{warm}print('torch' in sys.modules)", str(tmp_path)]
    for loads_torch in ("True", "False"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == loads_torch


DESCRIBED = """
import sys
from lance_align import resolve_spec
print(resolve_spec(sys.argv[1]).to_json())
print(sorted({"torch", "transformers"} & set(sys.modules)))
"""


def test_a_model_that_was_looked_at_is_described_without_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    afresh(monkeypatch, tmp_path / "cache")
    model = save_family("clip", tmp_path / "model")
    command = [sys.executable, "-c", DESCRIBED, str(model)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first.splitlines()[1] == "['torch', 'transformers']"
    assert second.splitlines() == [first.splitlines()[0], "[]"]
    (model / "adapter_config.json").write_text("{}")  # which no spec depends on, and no checkpoint has
    with pytest.raises(lance_align.LanceAlignError, match="PEFT adapter"):
        resolve_spec(str(model))
    (model / "adapter_config.json").unlink()
    for kept in (tmp_path / "cache" / "specs").iterdir():
        kept.write_text("rubbish")
    assert resolve_spec(str(model)).to_json() == first.splitlines()[0]
