"""Videos from a source to a search: a small X-CLIP, real files, Ray and LanceDB."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lance_align
from lance_align import Query, allow_models, attach, backfill, embed, load_encoder, verify
from lance_align.errors import ArgumentError, MissingExtraError, SourceError
from lance_align.rerankers import MatchReranker
from lance_align.videos import sampled_places
from tests.corpus import parquet, stored
from tests.family_models import FRAMES, Reference, save_family, smallest_cosine
from tests.pictures import encoded, scene
from tests.videos import damaged, decoded, film, sound

GOOD = {
    **{f"mp4-{seed}": film(20 + seed, seed=seed) for seed in range(6)},
    **{f"webm-{seed}": film(16, seed=seed, container="webm", codec="libvpx") for seed in range(6, 9)},
    "avi": film(9, seed=9, container="avi", codec="mpeg4"),
    "short": film(2, seed=10),
}
BAD = {
    "cut": (film()[:1500], "unreadable: "),
    "empty": (b"", "empty: "),
    "missing": (None, "null: "),
    "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "format: no video"),
    "sound": (sound(), "format: a file without moving pictures"),
    "text": (b"a film of a cat", "format: no video"),
}
ODD = {"damaged": damaged(film(24, seed=11), [14]), "picture": encoded(scene(64, 48, seed=1), "PNG")}

OPTIONS: dict[str, Any] = {"table": "films", "device": "cpu", "engine": "torch", "progress": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_family("xclip", tmp_path_factory.mktemp("models") / "xclip")
    allow_models(str(path))
    return path


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    found = {**GOOD, **{name: data for name, (data, _) in BAD.items()}, **ODD}
    return pa.table({"id": list(found), "video": pa.array(list(found.values()), pa.binary())})


@pytest.fixture(scope="module")
def films(model: Path, rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the table `films`."""
    folder = tmp_path_factory.mktemp("films")
    report = embed(parquet(rows, folder / "in.parquet"), db=folder / "db", model=str(model), **OPTIONS)
    assert (report.rows_read, report.embedded, report.failed) == (len(rows), len(GOOD) + len(ODD), len(BAD))
    return folder / "db"


def shown(data: bytes) -> list[Any]:
    """The frames that transformers is given."""
    every = decoded(data)
    return [every[place] for place in sampled_places(len(every), FRAMES)]


def test_vectors_are_those_of_transformers(films: Path, model: Path) -> None:
    reference = Reference("xclip", model)
    vectors = {row["id"]: row["vector"] for row in stored(films, "films")}
    ours = np.array([vectors[name] for name in GOOD], dtype=np.float32)
    assert smallest_cosine(ours, [reference.image(shown(data)) for data in GOOD.values()]) >= 0.9999
    assert (ours @ ours.T - np.eye(len(ours))).max() < 0.99999  # they differ


def test_bad_rows_have_reasons_and_odd_ones_vectors(films: Path) -> None:
    found = {row["id"]: row for row in stored(films, "films")}
    for name, (_, reason) in BAD.items():
        assert found[name]["vector"] is None
        assert found[name]["error"].startswith(reason)
    assert all(found[name]["error"] is None and found[name]["vector"] is not None for name in (*GOOD, *ODD))
    assert verify(lancedb.connect(films).open_table("films"), device="cpu").ok


def test_words_videos_pictures_and_frames_search_alike(films: Path, model: Path, tmp_path: Path) -> None:
    table = lancedb.connect(films).open_table("films")
    path = tmp_path / "clip.webm"
    path.write_bytes(GOOD["webm-7"])
    for query in (path, GOOD["webm-7"], Query(path), Query(np.stack(decoded(GOOD["webm-7"])))):
        (row,) = table.search(query).limit(1).to_list()
        assert row["id"] == "webm-7"
        assert row["_distance"] < 1e-5
    assert table.search(ODD["picture"]).limit(1).to_list()[0]["id"] == "picture"

    text = Reference("xclip", model).text("a red car")[0].numpy()
    stored_vectors = {row["id"]: row["vector"] for row in stored(films, "films") if row["vector"] is not None}
    best = sorted(stored_vectors, key=lambda name: -float(np.dot(stored_vectors[name], text)))
    assert [row["id"] for row in table.search("a red car").limit(5).to_list()] == best[:5]

    reranked = table.search("a red car").limit(8).rerank(reranker=MatchReranker(model, device="cpu")).to_list()
    assert len({row["_relevance_score"] for row in reranked}) == 8


def test_new_rows_embed_themselves(films: Path, model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(films, tmp_path / "db"))
    table = lancedb.connect(copy).open_table("films")
    data = film(12, seed=20)
    table.add([{"id": "mine", "image": data}])
    (row,) = table.search(data).limit(1).to_list()
    assert row["id"] == "mine"
    (vector,) = load_encoder(model, device="cpu", engine="torch").encode_images([decoded(data)]).vectors
    assert float(np.dot(row["vector"], vector)) > 0.99999


def test_a_folder_of_videos(films: Path, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    for name, place in (("mp4-1", "one.mp4"), ("webm-6", "more/two.webm"), ("avi", "three.AVI")):
        (folder / place).write_bytes(GOOD[name])
    (folder / "poster.jpg").write_bytes(encoded(scene(9, 9, seed=1), "JPEG"))  # a picture is no row of a folder
    report = embed(folder, db=tmp_path / "db", model=str(model), keep="thumbnail", thumbnail_px=32, **OPTIONS)
    assert (report.rows_read, report.embedded) == (3, 3)
    found = {row["id"]: row for row in stored(tmp_path / "db", "films")}
    parquet_vectors = {row["id"]: row["vector"] for row in stored(films, "films")}
    assert found["more/two.webm"]["vector"] == pytest.approx(parquet_vectors["webm-6"], abs=1e-5)
    assert all(row["image"].startswith(b"\xff\xd8") and row["error"] is None for row in found.values())


def test_videos_may_stay_where_they_are(films: Path, model: Path, tmp_path: Path) -> None:
    """The table keeps their addresses, where the reranker reads them if it may."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("mp4-1", "avi"):
        (folder / name).with_suffix(".mp4").write_bytes(GOOD[name])
    (folder / "text.mp4").write_bytes(BAD["text"][0])
    report = embed(folder, db=tmp_path / "db", model=str(model), keep="uri", **OPTIONS)
    assert (report.embedded, report.failed) == (2, 1)
    found = {row["id"]: row for row in stored(tmp_path / "db", "films")}
    assert {name: row["uri"] for name, row in found.items()} == {name: str(folder / name) for name in found}
    parquet_vectors = {row["id"]: row["vector"] for row in stored(films, "films")}
    assert found["mp4-1.mp4"]["vector"] == pytest.approx(parquet_vectors["mp4-1"], abs=1e-5)
    table = lancedb.connect(tmp_path / "db").open_table("films")
    assert table.search(GOOD["avi"]).limit(1).to_list()[0]["id"] == "avi.mp4"
    with pytest.raises(ArgumentError, match=r"column 'uri' holds paths .*allow_paths=True"):
        table.search("a car").rerank(reranker=MatchReranker(model, column="uri", device="cpu")).to_list()
    reranker = MatchReranker(model, column="uri", allow_paths=True, device="cpu")
    reranked = table.search("a car").limit(3).rerank(reranker=reranker).to_list()
    assert sorted(row["id"] for row in reranked) == ["avi.mp4", "mp4-1.mp4"]
    assert len({row["_relevance_score"] for row in reranked} - {None}) == 2


def test_shards_of_videos(films: Path, model: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard-0.tar", "w") as shard:
        for name, data in (("a.mp4", GOOD["mp4-2"]), ("a.txt", b"a car"), ("b.webm", GOOD["webm-8"]), ("b.txt", b"b")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    report = embed(tmp_path / "shard-0.tar", db=tmp_path / "db", model=str(model), **OPTIONS)
    assert (report.rows_read, report.embedded) == (2, 2)
    found = {row["id"]: row for row in stored(tmp_path / "db", "films")}
    parquet_vectors = {row["id"]: row["vector"] for row in stored(films, "films")}
    for name, same in (("shard-0.tar/a", "mp4-2"), ("shard-0.tar/b", "webm-8")):
        assert found[name]["vector"] == pytest.approx(parquet_vectors[same], abs=1e-5)
        assert found[name]["image"] == GOOD[same]


def test_a_column_of_videos_in_a_table_that_is_there(films: Path, model: Path, rows: pa.Table, tmp_path: Path) -> None:
    table = lancedb.connect(tmp_path).create_table("films", rows)
    attach(table, image="video", model=str(model))
    report = backfill(db=tmp_path, **OPTIONS)
    assert (report.embedded, report.failed) == (len(GOOD) + len(ODD), len(BAD))
    expected = {row["id"]: row for row in stored(films, "films")}
    for row in stored(tmp_path, "films"):
        assert row["error"] == expected[row["id"]]["error"]
        if row["vector"] is not None:
            assert row["vector"] == pytest.approx(expected[row["id"]]["vector"], abs=1e-5)


def test_a_column_is_recognised_by_its_name(model: Path, tmp_path: Path) -> None:
    for names in (["id", "caption"], ["id", "image_path"]):
        table = pa.table({name: ["a"] for name in names})
        with pytest.raises(SourceError, match=r"no column that looks like videos; name it with --image"):
            embed(parquet(table, tmp_path / "in.parquet"), db=tmp_path, model=str(model), embed="image", **OPTIONS)
    pq.write_table(pa.table({"video": [1]}), tmp_path / "numbers.parquet")
    with pytest.raises(SourceError, match="video column 'video' is int64"):
        embed(tmp_path / "numbers.parquet", db=tmp_path, model=str(model), image="video", **OPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"holds no videos and no other known files; expected a folder of videos"):
        embed(tmp_path / "empty", db=tmp_path, model=str(model), **OPTIONS)


def test_without_pyav_the_error_names_what_brings_it(
    model: Path, rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parquet(rows, tmp_path / "in.parquet")
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lance-align\[video\]'"):
        embed(source, db=tmp_path, model=str(model), **OPTIONS)
    with pytest.raises(MissingExtraError, match=r"pip install 'lance-align\[video\]'"):
        lance_align.load_encoder(model, device="cpu", engine="torch").encode_images([GOOD["short"]])
