"""Rerankers and segmentation give what transformers' whole models give, and LanceDB takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
import torch
from lancedb.index import FTS
from PIL import Image
from safetensors.torch import load_file, save_file

from lance_align import MatchReranker, add_areas, segment
from lance_align.encoders.pairs import load_pair_model
from lance_align.errors import ArgumentError, ModelError, TableError
from tests.family_models import FRAMES, Reference, save_family
from tests.pictures import encoded, scene

TEXT = "a red car at night"
LABELS = ["a cat", "sky", "the bright house on a hill", "ball", "blue river", "two children", "street", "x"]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("blip", tmp_path_factory.mktemp("models") / "blip", seed=5)


@pytest.fixture(scope="module")
def groupvit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family("groupvit", tmp_path_factory.mktemp("models") / "groupvit", seed=5)


def test_blips_scores_are_those_of_its_head(blip: Path) -> None:
    theirs, ours = Reference("blip", blip), load_pair_model(blip, part="matcher", device="cpu")
    pictures = [scene(40, 32, seed=seed) for seed in range(6)]
    expected = [_itm(theirs, picture, TEXT) for picture in pictures]
    found = ours.scores(TEXT, np.stack([np.asarray(_pixels(theirs, picture)) for picture in pictures]))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert max(expected) - min(expected) > 0.05  # or any score would do


def test_xclips_scores_are_conditioned_on_the_video(tmp_path: Path) -> None:
    directory = save_family("xclip", tmp_path / "xclip", seed=5)
    theirs, ours = Reference("xclip", directory), load_pair_model(directory, part="matcher", device="cpu")
    videos = [[scene(40, 32, seed=9 * video + frame) for frame in range(FRAMES)] for video in range(6)]
    with torch.inference_mode():
        pixels = torch.cat([theirs.pixels(video) for video in videos])
        expected = theirs.model(**theirs.tokens(TEXT), pixel_values=pixels).logits_per_video[:, 0].numpy()
    whole = ((pixels.permute(0, 1, 3, 4, 2) + 1) * 127.5).round().numpy().astype(np.uint8)
    np.testing.assert_allclose(ours.scores(TEXT, whole), expected, atol=1e-3)  # logits of a scale of 22
    words, plain = theirs.text(TEXT), torch.cat([theirs.image(video) for video in videos])
    assert np.abs(expected / np.exp(3.1) - (plain @ words.T)[:, 0].numpy()).max() > 0.01  # not the plain cosine


def test_a_planted_head_decides_the_order(blip: Path, tmp_path: Path) -> None:
    """A head of one sign and of the other: the orders are each other's reverse, whatever the search says."""
    table = _table(tmp_path, [encoded(scene(40, 32, seed=seed), "PNG") for seed in range(8)])
    orders = []
    for sign in (1.0, -1.0):
        directory = _with_head(blip, tmp_path / f"head {sign}", sign)
        found = _search(table).rerank(reranker=MatchReranker(directory, device="cpu"), query_string=TEXT).to_arrow()
        scores = found.column("_relevance_score").to_pylist()
        assert scores == sorted(scores, reverse=True)
        assert found.column("_relevance_score").type == pa.float32()
        orders.append(found.column("id").to_pylist())
        theirs = Reference("blip", directory)
        shown = [scene(40, 32, seed=int(row)) for row in orders[-1]]
        np.testing.assert_allclose(scores, [_itm(theirs, picture, TEXT) for picture in shown], atol=1e-4)
    assert orders[0] == orders[1][::-1]
    assert orders[0] != _search(table).to_arrow().column("id").to_pylist()


def test_candidates_without_a_picture_stand_at_the_end_in_their_order(blip: Path, tmp_path: Path) -> None:
    cells = [encoded(scene(40, 32, seed=seed), "PNG") for seed in range(5)]
    cells[0], cells[2], cells[3] = None, b"not a picture", None  # type: ignore[call-overload]
    table = _table(tmp_path, cells)
    before = [row for row in _search(table).to_arrow().column("id").to_pylist() if row in ("0", "2", "3")]
    found = _search(table).rerank(reranker=MatchReranker(blip, device="cpu"), query_string=TEXT).to_arrow()
    assert found.column("id").to_pylist()[2:] == before
    assert found.column("_relevance_score").null_count == 3
    assert found.column("_relevance_score").to_pylist()[2:] == [None] * 3


def test_full_text_and_hybrid_queries_are_reranked(blip: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, [encoded(scene(40, 32, seed=seed), "PNG") for seed in range(6)])
    table.create_index("caption", config=FTS())
    reranker = MatchReranker(blip, device="cpu")
    words = table.search("car", query_type="fts").limit(10).rerank(reranker=reranker).to_arrow()
    assert sorted(words.column("id").to_pylist()) == ["0", "2", "4"]
    hybrid = table.search(query_type="hybrid").vector(np.ones(4, np.float32)).text("car").limit(10)
    found = hybrid.rerank(reranker=reranker).to_arrow()
    assert sorted(found.column("id").to_pylist()) == [str(row) for row in range(6)]  # each once
    assert "_distance" not in found.column_names
    everything = MatchReranker(blip, device="cpu", return_score="all")
    kept = table.search("car", query_type="fts").limit(10).rerank(reranker=everything).to_arrow()
    assert "_score" in kept.column_names
    nothing = table.search("zebra", query_type="fts").limit(10).rerank(reranker=reranker).to_arrow()
    assert (nothing.num_rows, nothing.column("_relevance_score").type) == (0, pa.float32())


def test_what_cannot_be_reranked_is_said_in_a_line(blip: Path, groupvit: Path, tmp_path: Path) -> None:
    table = _table(tmp_path, [encoded(scene(40, 32, seed=1), "PNG")])
    reranker = MatchReranker(blip, device="cpu")
    with pytest.raises(ArgumentError, match=r"has a?.*no column 'image'|no column 'image' to look at"):
        _search(table).select(["id"]).rerank(reranker=reranker, query_string=TEXT).to_arrow()
    with pytest.raises(ArgumentError, match="expected words"):
        reranker.rerank_vector(None, _search(table).to_arrow())  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="allow_paths=True"):
        MatchReranker(blip, column="caption", device="cpu").rerank_vector(TEXT, _search(table).to_arrow())
    with pytest.raises(ModelError, match="GroupViTModel does not score pairs; BlipForImageTextRetrieval"):
        MatchReranker(groupvit, device="cpu")
    with pytest.raises(ModelError, match="BlipForImageTextRetrieval does not segment"):
        segment([], ["a"], model=blip, device="cpu")
    with pytest.raises(ModelError, match="has no weights"):
        MatchReranker("fake")
    with pytest.raises(ArgumentError, match="return_score is 'some'"):
        MatchReranker(blip, device="cpu", return_score="some")  # type: ignore[arg-type]


def test_paths_are_read_where_that_is_allowed(blip: Path, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(scene(40, 32, seed=1), "PNG"))
    results = pa.table({"uri": [str(path), str(tmp_path / "gone.png")]})
    reranker = MatchReranker(blip, column="uri", allow_paths=True, device="cpu")
    assert reranker.rerank_vector(TEXT, results).column("_relevance_score").null_count == 1


def test_paths_lead_out_of_no_folder(blip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in (folder / "inside.png", tmp_path / "outside.png"):
        path.write_bytes(encoded(scene(40, 32, seed=1), "PNG"))
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "circle").symlink_to(folder / "circle")
    inside = ["inside.png", str(folder / "inside.png"), "../pictures/inside.png"]
    outside = ["../outside.png", str(tmp_path / "outside.png"), "link.png", "circle/x.png", "a\0.png", "", "."]
    reranker = MatchReranker(blip, column="uri", root=folder, device="cpu")
    found = reranker.rerank_vector(TEXT, pa.table({"uri": inside + outside}))
    scored = {row["uri"] for row in found.to_pylist() if row["_relevance_score"] is not None}
    assert scored == set(inside)


def test_segments_are_those_of_transformers(groupvit: Path) -> None:
    theirs = Reference("groupvit", groupvit)
    pictures = [scene(48, 40, seed=seed) for seed in range(3)]
    found = segment([*pictures, None], LABELS, model=groupvit, template="{}", device="cpu")
    for mask, picture in zip(found.masks, pictures, strict=False):
        with torch.inference_mode():
            tokens = theirs.tokenizer(LABELS, padding=True, return_tensors="pt")
            logits = theirs.model(
                **tokens, pixel_values=theirs.pixels(picture), output_segmentation=True
            ).segmentation_logits[0]
        assert (mask == logits.argmax(0).numpy()).mean() > 0.999  # ties at the borders
    assert len(np.unique(found.masks[:3])) > 1
    assert found.reasons == (None, None, None, "null: no image")
    assert (found.masks[3] == -1).all()
    np.testing.assert_allclose(found.areas[:3].sum(axis=1), 1, atol=1e-6)
    assert np.isnan(found.areas[3]).all()


def test_areas_become_columns(groupvit: Path, tmp_path: Path) -> None:
    pictures = [scene(48, 40, seed=seed) for seed in range(3)]
    table = _table(tmp_path, [*(encoded(picture, "PNG") for picture in pictures), None, b"no picture"])
    version = add_areas(table, LABELS, model=groupvit, template="{}", device="cpu")
    assert version == table.version
    found = table.to_arrow().sort_by("id")
    expected = segment(pictures, LABELS, model=groupvit, template="{}", device="cpu").areas
    names = ["area_a_cat", "area_sky", "area_the_bright_house_on_a_hill"]
    for name, shares in zip(names, expected.T, strict=False):
        assert found.schema.field(name).type == pa.float32()
        np.testing.assert_allclose(found.column(name).to_pylist()[:3], shares, atol=1e-6)
        assert found.column(name).to_pylist()[3:] == [None, None]
    with pytest.raises(TableError, match="has a column 'area_sky' already"):
        add_areas(table, ["sky", "a"], model=groupvit, device="cpu")
    with pytest.raises(ArgumentError, match="'A!' and 'a\\?' would share the column 'area_a_'"):
        add_areas(table, ["A!", "a?"], model=groupvit, device="cpu")
    with pytest.raises(TableError, match="no column 'photo' of encoded images"):
        add_areas(table, ["a"], model=groupvit, image_column="photo", device="cpu")


def _table(folder: Path, cells: list[Any]) -> Any:
    """Rows of pictures, whose vectors lie in the order of their ids; every other caption names a car."""
    count = len(cells)
    vectors = np.ones((count, 4), np.float32) + np.arange(count, dtype=np.float32)[:, np.newaxis]
    rows = pa.table(
        {
            "id": [str(row) for row in range(count)],
            "image": pa.array(cells, pa.large_binary()),
            "caption": ["a car" if row % 2 == 0 else "a dog" for row in range(count)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 4),
        }
    )
    return lancedb.connect(folder / "db").create_table("t", rows, mode="overwrite")


def _search(table: Any) -> Any:
    return table.search(np.ones(4, np.float32)).limit(100)


def _with_head(directory: Path, copy: Path, sign: float) -> Path:
    """The same model, its head for matching turned over or not."""
    import shutil

    shutil.copytree(directory, copy)
    tensors = load_file(copy / "model.safetensors")
    for name in ("itm_head.weight", "itm_head.bias"):
        tensors[name] *= sign
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@torch.inference_mode()
def _itm(theirs: Reference, picture: Image.Image, text: str) -> float:
    """As transformers documents it."""
    scores = theirs.model(**theirs.tokens(text), pixel_values=theirs.pixels(picture)).itm_score
    return float(scores.softmax(1)[0, 1])


def _pixels(theirs: Reference, picture: Image.Image) -> Any:
    """What the processor gives before it scales."""
    return picture.resize((theirs.processor.size["width"], theirs.processor.size["height"]), Image.Resampling.BICUBIC)
