"""Every family gives the vectors and scores of transformers' own model, on every kind of input."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any, cast

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from lance_align import embed, images, known_models, load_encoder
from lance_align.cli import run_command
from lance_align.encoders import Encoder, families, resolve_spec
from lance_align.encoders.families import FAMILIES
from lance_align.encoders.zero_shot import label_probabilities
from lance_align.errors import ModelError
from lance_align.spec import KNOWN_CHECKPOINTS, ImageSpec
from tests.family_models import FRAMES, SAMPLES, Reference, save_family, smallest_cosine
from tests.pictures import encoded, every_kind, scene

CAPTIONS = [
    "a red car",
    "a photo of a cat sitting under the table",
    "",
    "Ünïcödé — 猫 🚗",
    "two dogs and three children playing with a ball on a hill by the river at night " * 8,
    "dog",
    "a photo of a small blue house with a bright sky",
]
PICTURES = sorted(name for name in SAMPLES if name != "xclip")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of every family."""
    folder = tmp_path_factory.mktemp("families")
    return {name: save_family(name, folder / name, seed=3) for name in SAMPLES}


@pytest.fixture
def of(checkpoints: dict[str, Path], request: pytest.FixtureRequest) -> tuple[Encoder, Reference]:
    """Ours and theirs of the family that the test is run for."""
    name = request.param
    return load_encoder(checkpoints[name], device="cpu", engine="torch"), Reference(name, checkpoints[name])


def shown(data: bytes) -> Image.Image:
    """The upright RGB picture of a file, decoded by Pillow alone."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    return image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")


def test_the_table_of_families_is_what_the_tests_go_through() -> None:
    assert set(SAMPLES) == set(FAMILIES)


@pytest.mark.parametrize("of", PICTURES, indirect=True)
def test_image_vectors_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    ours, theirs = of
    files = {name: data for name, data in every_kind().items() if name != "4000 pixels"}  # which is decoded smaller
    found = ours.encode_images([*files.values(), None, b"no picture"])
    assert [reason and reason.split(":")[0] for reason in found.reasons] == [None] * len(files) + ["null", "format"]
    expected = [theirs.image(shown(data)) for data in files.values()]
    assert smallest_cosine(found.vectors[: len(files)], expected) >= 0.9999
    assert _spread(found.vectors[: len(files)]) < 0.99  # or any vector would do


@pytest.mark.parametrize("of", sorted(SAMPLES), indirect=True)
def test_text_vectors_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    ours, theirs = of
    found = ours.encode_texts([*CAPTIONS, None])
    assert found.reasons == (None,) * len(CAPTIONS) + ("null: no text",)
    assert smallest_cosine(found.vectors[:-1], [theirs.text(caption) for caption in CAPTIONS]) >= 0.9999
    assert _spread(found.vectors[:-1]) < 0.99


@pytest.mark.parametrize("of", ["xclip"], indirect=True)
def test_video_vectors_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    ours, theirs = of
    videos = [[scene(60, 44, seed=9 * video + frame) for frame in range(FRAMES)] for video in range(3)]
    pixels = [theirs.pixels(video)[0] for video in videos]  # (frames, 3, height, width), from -1 to 1
    whole = np.stack([((each + 1) * 127.5).round().permute(0, 2, 3, 1).numpy() for each in pixels]).astype(np.uint8)
    assert smallest_cosine(ours.encode_pixels(whole), [theirs.image(video) for video in videos]) >= 0.9999
    assert _spread(ours.encode_pixels(whole)) < 0.99


@pytest.mark.parametrize("of", sorted(SAMPLES), indirect=True)
def test_scores_are_those_of_transformers(of: tuple[Encoder, Reference]) -> None:
    """The logits that transformers' whole model gives for the same pair, and its documented probabilities."""
    ours, theirs = of
    picture = scene(48, 40, seed=1)
    if theirs.name == "xclip":
        return  # its own logits are conditioned on the video; the reranker gives them
    texts = CAPTIONS[:2]
    image, words = ours.encode_images([picture]).vectors, ours.encode_texts(texts).vectors
    logits = ours.score.logits(image @ words.T)[0]
    expected = np.array([_logit(theirs, picture, text) for text in texts])
    if theirs.name == "blip":
        logits = logits * ours.temperature  # transformers gives the cosine itself
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 if theirs.name != "blip" else 1e-4)
    shares = label_probabilities(image, texts, encoder=ours, template="{}")[0]
    if theirs.name == "siglip":
        np.testing.assert_allclose(shares, 1 / (1 + np.exp(-expected)), atol=1e-4)
    else:
        assert shares.sum() == pytest.approx(1)
        assert (shares[0] > shares[1]) == (expected[0] > expected[1])


@torch.inference_mode()
def _logit(theirs: Reference, picture: Image.Image, text: str) -> float:
    inputs: dict[str, Any] = {"pixel_values": theirs.pixels(picture), **theirs.tokens(text)}
    if theirs.name == "blip":
        return float(theirs.model(**inputs, use_itm_head=False).itm_score)
    return float(theirs.model(**inputs).logits_per_image)


@pytest.mark.parametrize("of", sorted(SAMPLES), indirect=True)
def test_vectors_do_not_depend_on_the_batch(of: tuple[Encoder, Reference]) -> None:
    ours, _ = of
    shape = ours.spec.image.shape
    pixels = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    alone = np.concatenate([ours.encode_pixels(each[np.newaxis]) for each in pixels])
    np.testing.assert_allclose(ours.encode_pixels(pixels), alone, atol=1e-5)
    texts = CAPTIONS * 2
    one_by_one = np.concatenate([ours.encode_texts([text]).vectors for text in texts])
    np.testing.assert_allclose(ours.encode_texts(texts).vectors, one_by_one, atol=1e-5)
    assert ours.encode_pixels(pixels[:0]).shape == (0, ours.spec.dim)
    assert len(ours.encode_texts([])) == 0


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_openvino_gives_the_same_vectors_or_gives_way(name: str, checkpoints: dict[str, Path]) -> None:
    graph = load_encoder(checkpoints[name], device="cpu", engine="openvino")
    plain = load_encoder(checkpoints[name], device="cpu", engine="torch")
    pixels = np.random.default_rng(1).integers(0, 256, (3, *plain.spec.image.shape), dtype=np.uint8)
    assert float((graph.encode_pixels(pixels) * plain.encode_pixels(pixels)).sum(axis=1).min()) >= 0.9999


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_one_tower_is_loaded_for_one_kind_of_input(name: str, checkpoints: dict[str, Path]) -> None:
    from lance_align.encoders.two_towers import TowerEncoder

    spec = resolve_spec(checkpoints[name])
    words, pictures = (TowerEncoder(spec, checkpoints[name], device="cpu", engine="torch") for _ in range(2))
    words.encode_texts(["a cat"])
    pictures.encode_pixels(np.zeros((1, *spec.image.shape), np.uint8))
    assert (words.loaded_towers, pictures.loaded_towers) == ({"text"}, {"image"})


def _spread(vectors: np.ndarray) -> float:
    """The largest cosine between two different rows, on average over rows."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return float(np.median(cosines.max(axis=1)))


@pytest.mark.parametrize("name", PICTURES)
def test_a_family_searches_a_real_table(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """Job, table, search with words and with a picture, and a row that LanceDB embeds itself."""
    pictures = [encoded(scene(40, 32, seed=seed), "PNG") for seed in range(5)]
    source = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": list("abcdef"), "image": [*pictures, b"broken"]}), source)
    db, engine = tmp_path / "db", "torch"
    report = embed(source, db=db, table="t", model=str(checkpoints[name]), device="cpu", engine=engine, progress=False)
    assert (report.embedded, report.failed) == (5, 1)
    table = lancedb.connect(db).open_table("t")
    encoder = load_encoder(checkpoints[name], device="cpu", engine=engine)
    for query, vector in (
        (CAPTIONS[1], encoder.encode_texts([CAPTIONS[1]]).vectors[0]),
        (scene(40, 32, seed=2), encoder.encode_images([pictures[2]]).vectors[0]),
    ):
        found = table.search(query, vector_column_name="vector").limit(9).to_list()
        expected = encoder.encode_images(pictures).vectors @ vector
        assert [row["id"] for row in found] == ["abcde"[place] for place in np.argsort(-expected)]
    assert found[0]["id"] == "c"
    table.add([{"id": "g", "image": pictures[2]}])
    added, first = (table.search().where(f"id = '{row}'").to_list()[0]["vector"] for row in "gc")
    np.testing.assert_allclose(added, first, atol=1e-5)


def test_an_untrained_dual_encoder_is_refused_by_name(tmp_path: Path) -> None:
    """What from_vision_text_pretrained gives: trained towers, and projections that nobody has trained."""
    from transformers import BertConfig, BertModel, VisionTextDualEncoderModel, ViTConfig, ViTModel

    layers = {"hidden_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    directory = save_family("vision-text-dual-encoder", tmp_path / "dual")
    vision = ViTModel(ViTConfig(**layers, image_size=32, patch_size=8))
    text = BertModel(BertConfig(**layers, vocab_size=1000, max_position_embeddings=96))
    for name, part in (("vision", vision), ("text", text)):
        part.save_pretrained(tmp_path / name)
    model = VisionTextDualEncoderModel.from_vision_text_pretrained(str(tmp_path / "vision"), str(tmp_path / "text"))
    model.save_pretrained(directory)
    with pytest.raises(ModelError, match=r"vectors would be random; train the model first") as refused:
        load_encoder(directory, device="cpu")
    assert str(directory) in str(refused.value)
    tensors = load_file(directory / "model.safetensors")
    trained = {**tensors, "text_projection.weight": tensors["text_projection.weight"] * 1.2}  # as training leaves it
    for scale in ({}, {"logit_scale": torch.tensor(2.6592)}, {"logit_scale": torch.tensor(3.0)}):
        others = {name: value for name, value in trained.items() if name != "logit_scale"}
        save_file({**others, **scale}, directory / "model.safetensors", metadata={"format": "pt"})
        scale_seen = load_encoder(directory, device="cpu").score.temperature
        assert scale_seen == pytest.approx(float(torch.exp(-scale.get("logit_scale", torch.tensor(2.6592)))), rel=1e-4)
    assert load_encoder(directory, device="cpu").encode_texts(["a cat"]).reasons == (None,)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("clip", {"model_type": "clip_text_model"}, "describes a 'clip_text_model' model; expected one of align, blip"),
        ("clip", {"model_type": "siglip"}, "holds tensors that SiglipModel does not have"),
        ("siglip", {"model_type": "clip"}, "holds tensors that CLIPModel does not have|takes"),
        ("blip", {"image_text_hidden_size": 16}, "config.json asks for"),
        ("clip", {"projection_dim": "wide"}, "not a valid configuration of CLIPModel"),
        ("xclip", {"model_type": "groupvit"}, "GroupViTModel"),
        ("vision-text-dual-encoder", {"text_config": {"model_type": "gpt2"}}, "text_config is of a 'gpt2' model"),
        ("vision-text-dual-encoder", {"projection_dim": 23}, "lacks text_projection.weight"),
    ],
)
def test_a_checkpoint_of_another_family_is_refused(
    name: str, change: dict[str, Any], complaint: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoints[name], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=complaint) as refused:
        _use(copy)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_missing_weights_are_an_error_and_no_random_numbers(
    name: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(checkpoints[name], tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    for part in ("vision", "text"):
        victim = sorted(key for key in tensors if key.startswith(f"{part}_") and key.endswith(".weight"))[0]
        save_file({key: value for key, value in tensors.items() if key != victim}, copy / "model.safetensors")
        with pytest.raises(ModelError, match="lacks"):
            _use(copy)


def test_a_processor_of_another_size_is_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(checkpoints["clip"], tmp_path / "copy"))
    (copy / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "CLIPImageProcessor"}))
    with pytest.raises(ModelError, match=r"pictures of \(224, 224\), the image tower takes \(32, 32\)"):
        resolve_spec(copy)
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="save the image processor beside the model"):
        resolve_spec(copy)
    (copy / "tokenizer.json").unlink()
    shutil.copy(checkpoints["clip"] / "preprocessor_config.json", copy)
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        load_encoder(copy, device="cpu").encode_texts(["a"])


@pytest.mark.parametrize("fitting", [(16, 16), (20, 24)])
def test_a_very_long_picture_costs_no_more_than_its_middle(fitting: tuple[int, int]) -> None:
    """As a whole, 8 x 60,000 pixels would be resized to 32 x 240,000."""
    spec = ImageSpec(resize=(32, 32), crop=fitting, resample="bicubic", fit="shortest")
    picture = scene(8, 600, seed=1)
    tall = Image.new("RGB", (8, 60_000))
    tall.paste(picture, (0, 29_700))
    whole = picture.resize((32, 2400), Image.Resampling.BICUBIC)
    top, left = (2400 - fitting[0]) // 2, (32 - fitting[1]) // 2
    expected = np.asarray(whole)[top : top + fitting[0], left : left + fitting[1]]
    found = images.to_pixels(tall, spec)
    assert found.shape == (*fitting, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1


def _use(directory: Path) -> None:
    encoder = load_encoder(directory, device="cpu", engine="torch")
    encoder.encode_texts(["a cat"])
    encoder.encode_pixels(np.zeros((1, *encoder.spec.image.shape), np.uint8))


def test_readmes_table_of_models_is_true_line_by_line() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.partition("## Which model")[2].partition("| family ")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    lines = {row[0].strip("`"): row for row in rows[2:]}  # behind the head and its rule
    assert set(lines) == set(FAMILIES)
    named = {}
    for family, row in lines.items():
        names = [cell.split("`")[1] for cell in row[1].split(";")]
        named |= {name: (family, int(dim)) for name, dim in zip(names, row[2].split(";"), strict=True)}
        assert all(len(cell) > 4 for cell in row[3:])
    known = {each.name: (each.family, each.dim) for each in KNOWN_CHECKPOINTS.values() if each.source != "none"}
    assert named == known
    assert resolve_spec("align-tiny").dim == known["align-tiny"][1]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_command_line_lists_what_is_known(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run_command("models", [])
    printed = capsys.readouterr().out
    assert all(name in printed.replace("\n", "") for name in FAMILIES)
    for model in known_models():  # names on one line to be copied; what is said of them to be read
        assert any(model.name in line.split() for line in printed.splitlines()), model.name
        assert model.summary in " ".join(printed.split())
    assert len(printed.splitlines()) < 8 * len(known_models())
    models = {model.name: model for model in known_models()}
    assert set(models) == {each.name for each in KNOWN_CHECKPOINTS.values() if each.source != "none"}
    assert models["align-tiny"].size_mb == pytest.approx(11, abs=2)
    here = models["align-tiny"].weights
    assert here is not None
    assert here.is_file()


def test_a_family_is_one_file_and_one_row(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but these two comes with them: here CLIP with its pictures turned upside down."""
    file = tmp_path / "upside.py"
    file.write_text(
        "from lance_align.encoders.families.clip import Clip, ImageTower\n"
        "class Upside(Clip):\n"
        "    def new_image_tower(self, config, image):\n"
        "        return Turned(self.whole(config), image)\n"
        "class Turned(ImageTower):\n"
        "    def features(self, pixels):\n"
        "        return super().features(pixels.flip(2))\n"
    )
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    monkeypatch.setitem(cast("dict[str, str]", FAMILIES), "upside", "upside:Upside")
    copy = Path(shutil.copytree(checkpoints["clip"], tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "upside"}))
    ours, clip = (load_encoder(each, device="cpu", engine="torch") for each in (copy, checkpoints["clip"]))
    pixels = np.random.default_rng(0).integers(0, 256, (2, *clip.spec.image.shape), dtype=np.uint8)
    np.testing.assert_allclose(ours.encode_pixels(pixels), clip.encode_pixels(pixels[:, ::-1].copy()), atol=1e-5)
    np.testing.assert_allclose(ours.encode_texts(CAPTIONS).vectors, clip.encode_texts(CAPTIONS).vectors, atol=1e-6)
    assert ours.spec.family == "upside"
