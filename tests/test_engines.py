"""Engines are checked before they are used, give way with a reason, and start from what an earlier process compiled."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from lance_align import embed, load_encoder, verify
from lance_align.encoders import resolve_spec
from lance_align.encoders.checkpoints import BUNDLED
from lance_align.encoders.engines import recipe as recipes
from lance_align.encoders.engines.base import MIN_COSINE, MIN_COSINE_BFLOAT16, agreement, probe_pixels
from lance_align.encoders.engines.choice import image_engine
from lance_align.encoders.engines.graph import GraphEngine
from lance_align.encoders.engines.module import prepare
from lance_align.encoders.engines.store import cache_folder
from lance_align.encoders.families.align import ImageTower
from lance_align.encoders.pixels import PixelTower
from lance_align.encoders.two_towers import TowerEncoder, image_tower
from lance_align.errors import ArgumentError, MissingExtraError, ModelError
from lance_align.spec import ModelSpec
from tests.corpus import parquet, pictures
from tests.pictures import scene

DIRECTORY = BUNDLED / "align-tiny"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return resolve_spec("align-tiny")


@pytest.fixture(scope="module")
def compiled(spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds the tower: to compile it takes seconds."""
    place = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANCE_ALIGN_CACHE", str(place))
        GraphEngine(spec, lambda: plain(spec), threads=1)
    return place


@pytest.fixture
def filled(cache: Path, compiled: Path) -> Path:
    """A cache of its own that holds the tower."""
    shutil.copytree(compiled, cache)
    return cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, still empty."""
    monkeypatch.setenv("LANCE_ALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def plain(spec: ModelSpec) -> PixelTower:
    """The tower without any engine."""
    return image_tower(spec, DIRECTORY)


def never() -> PixelTower:
    raise AssertionError("the tower was loaded")


class Moody(ImageTower):
    """Sees dark pictures in another way: a graph traced with one kind is wrong for the other."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        features = super().forward(pixels)
        return features.flip(1) if pixels.float().mean().item() < 10 else features


def moody(spec: ModelSpec) -> PixelTower:
    tower = plain(spec)
    tower.__class__ = Moody
    return tower


def reference(spec: ModelSpec) -> np.ndarray:
    with torch.inference_mode():
        found: np.ndarray = plain(spec)(torch.tensor(probe_pixels(spec.image))).numpy()
    return found


@pytest.mark.parametrize("number", [1, 3, 40])
def test_both_give_the_plain_towers_vectors(number: int, spec: ModelSpec, filled: Path) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (number, *spec.image.crop, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = plain(spec)(torch.tensor(pixels)).numpy()
    for name in ("torch", "openvino"):
        engine = image_engine(spec, lambda: plain(spec), engine=name, device=CPU, dtype=torch.float32, batch_size=None)
        assert engine.name == name
        found = engine(pixels)
        assert found.shape == expected.shape
        assert agreement(found, expected) > 0.99999
    assert filled.is_dir()


def test_the_next_process_needs_no_weights(spec: ModelSpec, cache: Path) -> None:
    probe = probe_pixels(spec.image)
    first = GraphEngine(spec, lambda: plain(spec), threads=1)(probe)
    np.testing.assert_allclose(GraphEngine(spec, never, threads=2)(probe), first, atol=1e-5)
    assert {path.name for path in cache.rglob("*") if path.is_file()} == {
        "image.xml",
        "image.bin",
        "probe.safetensors",
    }


def halving(self: PixelTower, pixels: torch.Tensor) -> torch.Tensor:
    return self.features(self.scaled(pixels) * 0.5).to(torch.float32)


def _other_code(patch: pytest.MonkeyPatch, spec: ModelSpec) -> ModelSpec:
    patch.setattr(PixelTower, "forward", halving)
    return spec


def _other_library(patch: pytest.MonkeyPatch, spec: ModelSpec) -> ModelSpec:
    versions = {"torch": "2.13.0", "transformers": "5.99"}
    patch.setattr(recipes, "version", lambda name: versions[name])
    return spec


def _other_preprocessing(patch: pytest.MonkeyPatch, spec: ModelSpec) -> ModelSpec:
    del patch  # the same files, read otherwise by another release
    return dataclasses.replace(spec, image=dataclasses.replace(spec.image, shift=(0.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    "change",
    [_other_code, *(pytest.param(each, marks=pytest.mark.slow) for each in (_other_library, _other_preprocessing))],
)
def test_releases_that_compute_otherwise_stand_beside_each_other(
    change: Callable[[pytest.MonkeyPatch, ModelSpec], ModelSpec], spec: ModelSpec, filled: Path
) -> None:
    probe = probe_pixels(spec.image)
    before = GraphEngine(spec, never, threads=1)(probe)
    with pytest.MonkeyPatch.context() as patch:
        changed = change(patch, spec)
        after = GraphEngine(changed, lambda: plain(changed), threads=1)(probe)
        np.testing.assert_allclose(GraphEngine(changed, never, threads=1)(probe), after, atol=1e-5)
        assert agreement(after, plain(changed)(torch.tensor(probe)).numpy()) > MIN_COSINE
    if change is not _other_library:
        assert agreement(after, before) < MIN_COSINE  # the old graph would have been wrong
    np.testing.assert_allclose(GraphEngine(spec, never, threads=1)(probe), before, atol=1e-5)
    assert len(list(filled.rglob("image.xml"))) == 2


def test_the_name_of_a_graph_is_the_same_in_each_process(spec: ModelSpec) -> None:
    script = (
        "from lance_align import resolve_spec; from lance_align.encoders.engines.recipe import recipe\n"
        "print(recipe(resolve_spec('align-tiny'), engine='e'))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == recipes.recipe(spec, engine="e")


def cut(folder: Path) -> None:
    weights = folder / "image.bin"
    os.truncate(weights, weights.stat().st_size // 2)


def other(folder: Path) -> None:
    wrong = np.random.default_rng(0).normal(size=(3, 256)).astype(np.float32)
    save_file({"features": wrong}, folder / "probe.safetensors")


def pickled(folder: Path) -> None:
    (folder / "probe.safetensors").write_bytes(pickle.dumps({"features": [1.0]}))


def nameless(folder: Path) -> None:
    save_file({"other": np.zeros((3, 256), np.float32)}, folder / "probe.safetensors")


def gone(folder: Path) -> None:
    (folder / "image.bin").unlink()


def garbage(folder: Path) -> None:
    (folder / "image.xml").write_text("<net/>")


@pytest.mark.parametrize(
    "damage", [cut, pickled, *(pytest.param(each, marks=pytest.mark.slow) for each in (other, nameless, gone, garbage))]
)
def test_what_is_damaged_in_the_cache_is_made_again(
    damage: Callable[[Path], None], spec: ModelSpec, filled: Path
) -> None:
    (folder,) = (path.parent for path in filled.rglob("image.xml"))
    damage(folder)
    engine = GraphEngine(spec, lambda: plain(spec), threads=1)
    assert agreement(engine(probe_pixels(spec.image)), reference(spec)) > MIN_COSINE
    GraphEngine(spec, never, threads=1)


def test_without_a_cache_nothing_is_kept(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LANCE_ALIGN_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine = GraphEngine(spec, lambda: plain(spec), threads=1)
    assert agreement(engine(probe_pixels(spec.image)), reference(spec)) > MIN_COSINE
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="/proc is as unwritable to everybody, but says it in another way")
def test_a_cache_that_cannot_be_written_costs_time_only(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANCE_ALIGN_CACHE", "/proc/nowhere")
    with pytest.warns(RuntimeWarning, match=r"cannot be kept in /proc/nowhere.*name a folder .* LANCE_ALIGN_CACHE"):
        engine = GraphEngine(spec, lambda: plain(spec), threads=1)
    assert agreement(engine(probe_pixels(spec.image)), reference(spec)) > MIN_COSINE
    GraphEngine(spec, lambda: plain(spec), threads=1)  # said once


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "LANCE_ALIGN_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder("openvino") is None


def test_a_graph_that_is_wrong_gives_way_to_torch_and_says_so(spec: ModelSpec, cache: Path) -> None:
    with pytest.warns(RuntimeWarning, match=r"OpenVINO cannot run 'align-tiny' \(its vectors are off: cosine .*torch"):
        engine = image_engine(
            spec, lambda: moody(spec), engine="auto", device=CPU, dtype=torch.float32, batch_size=None
        )
    assert engine.name == "torch"
    assert agreement(engine(probe_pixels(spec.image)), reference(spec)) > MIN_COSINE
    with pytest.raises(ModelError, match=r"OpenVINO cannot run 'align-tiny': its vectors are off.*engine='torch'"):
        image_engine(spec, lambda: moody(spec), engine="openvino", device=CPU, dtype=torch.float32, batch_size=None)
    assert not list(cache.rglob("*.xml"))


def test_auto_is_torch_where_openvino_is_not_installed(
    spec: ModelSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert TowerEncoder(spec, DIRECTORY, device="cpu").image_engine == "torch"
    with pytest.raises(MissingExtraError, match=r"pip install 'lance-align\[openvino\]'"):
        load_encoder("align-tiny", engine="openvino", device="cpu")
    source = parquet(pictures(4), tmp_path / "in.parquet")
    with pytest.raises(MissingExtraError):
        embed(source, db=tmp_path, table="t", model="align-tiny", engine="openvino")
    assert not (tmp_path / "t.lance").exists()


def test_auto_is_openvino_where_it_is_installed(spec: ModelSpec) -> None:
    assert TowerEncoder(spec, DIRECTORY, device="cpu").image_engine == "openvino"


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ArgumentError, match="engine is 'onnx'; expected one of auto, torch, compiled, openvino"):
        load_encoder("align-tiny", engine="onnx")  # type: ignore[arg-type]


def test_bfloat16_is_another_precision_and_not_another_vector(spec: ModelSpec) -> None:
    exact = TowerEncoder(spec, DIRECTORY, device="cpu")
    rough = TowerEncoder(spec, DIRECTORY, device="cpu", precision="bfloat16")
    pictures = [scene(90, 70, seed=seed) for seed in range(20)]
    texts = ["a red car", "two dogs under a tree", "house"]
    for found, expected in (
        (rough.encode_images(pictures), exact.encode_images(pictures)),
        (rough.encode_texts(texts), exact.encode_texts(texts)),
    ):
        assert found.vectors.dtype == np.float32
        assert MIN_COSINE_BFLOAT16 < agreement(found.vectors, expected.vectors) < 0.99999
    assert rough.image_engine == "torch"


def test_a_tower_that_bfloat16_spoils_stays_in_float32(spec: ModelSpec) -> None:
    """One channel of the first layer is made so large that the others drown in its rounding."""

    def load() -> PixelTower:
        tower = plain(spec)
        stem = tower.vision_model.embeddings.batchnorm
        stem.bias.add_(1000.0)
        return tower

    with pytest.warns(RuntimeWarning, match=r"'align-tiny' gives other vectors .*in bfloat16.*it runs in float32"):
        engine = image_engine(spec, load, engine="torch", device=CPU, dtype=torch.bfloat16, batch_size=None)
    probe = probe_pixels(spec.image)
    with torch.inference_mode():
        assert agreement(engine(probe), load()(torch.tensor(probe)).numpy()) > MIN_COSINE
    assert engine.precision == "float32"


def test_a_folding_that_bfloat16_does_not_bear_is_left_out(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before float32 is: half the speed of a GPU lies between them."""

    def spoilt(tower: PixelTower, device: torch.device, dtype: torch.dtype, *, fold: bool = True) -> None:
        prepare(tower, device, dtype, fold=fold)
        if fold and dtype == torch.bfloat16:
            tower.scale.mul_(-1)

    monkeypatch.setattr("lance_align.encoders.engines.choice.prepare", spoilt)
    with pytest.warns(RuntimeWarning, match=r"in bfloat16, normalisation folded\); it runs in bfloat16"):
        engine = image_engine(
            spec, lambda: plain(spec), engine="torch", device=CPU, dtype=torch.bfloat16, batch_size=None
        )
    assert engine.precision == "bfloat16"
    assert agreement(engine(probe_pixels(spec.image)), reference(spec)) > MIN_COSINE_BFLOAT16


def test_precisions_and_engines_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ArgumentError, match="precision is 'int8'; expected one of auto, float32, bfloat16"):
        load_encoder("align-tiny", precision="int8")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="'openvino' computes in float32, not in bfloat16; use engine='torch'"):
        load_encoder("align-tiny", device="cpu", engine="openvino", precision="bfloat16")


def test_a_job_in_bfloat16_passes_verification_in_float32(tmp_path: Path) -> None:
    source = parquet(pictures(12), tmp_path / "in.parquet")
    report = embed(source, db=tmp_path / "db", table="t", model="align-tiny", precision="bfloat16", progress=False)
    assert report.embedded == 12
    table = lancedb.connect(tmp_path / "db").open_table("t")
    assert verify(table, device="cpu").ok
    exact = load_encoder("align-tiny", device="cpu", engine="torch")
    rows = table.search().limit(100).to_list()
    expected = exact.encode_images([row["image"] for row in rows]).vectors
    assert agreement(np.array([row["vector"] for row in rows], np.float32), expected) < 0.99999  # it was bfloat16


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # torch's own use of it
def test_a_compiled_tower_gives_the_plain_towers_vectors(spec: ModelSpec) -> None:
    """Minutes on a CPU; rows that do not fill a batch are filled up."""
    pytest.importorskip("torch._inductor")
    encoder = TowerEncoder(spec, DIRECTORY, device="cpu", engine="compiled", batch_size=4)
    pixels = np.concatenate([probe_pixels(spec.image)] * 2)
    assert encoder.image_engine == "compiled"
    with torch.inference_mode():
        expected = plain(spec)(torch.tensor(pixels)).numpy()
    assert agreement(encoder.encode_pixels(pixels), expected) > MIN_COSINE


def test_a_tower_that_cannot_be_compiled_is_an_error(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: int)  # called with pixels it raises, as a compiler would
    with pytest.raises(ModelError, match=r"torch cannot compile 'align-tiny' .*use engine='torch'"):
        image_engine(spec, lambda: plain(spec), engine="compiled", device=CPU, dtype=torch.float32, batch_size=None)


def test_rows_without_a_direction_do_not_count() -> None:
    rows = np.array([[1, 0], [0, 0], [np.nan, 1]], np.float32)
    assert agreement(rows, rows) == 1.0
    assert agreement(rows[1:], rows[1:]) == 1.0
    assert np.isnan(agreement(np.zeros((1, 2), np.float32), rows[:1]))
    assert agreement(-rows[:1], rows[:1]) == -1.0


NO_NETWORK = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(refuse)
import numpy as np
from lance_align import load_encoder
encoder = load_encoder("align-tiny", engine="openvino", device="cpu")
assert encoder.encode_pixels(np.zeros((2, *encoder.spec.image.crop, 3), np.uint8)).shape == (2, 256)
"""


@pytest.mark.slow  # a new process that compiles
def test_nothing_is_reported_to_anyone(cache: Path, tmp_path: Path) -> None:
    """OpenVINO's own conversion reports its use."""
    home = tmp_path / "home"
    home.mkdir()  # without one, OpenVINO reports nothing
    clean = os.environ | {"HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", NO_NETWORK], env=clean, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(home.iterdir())
    assert cache.is_dir()
