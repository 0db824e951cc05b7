"""From a model's name to its description: what is read, what is refused and how."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

import lance_align.encoders.fingerprint as fingerprints
from lance_align.benchmarks import weights
from lance_align.encoders import allow_models, is_allowed, load_encoder, resolve_spec
from lance_align.encoders.geometry import read_image_spec
from lance_align.encoders.two_towers import TowerEncoder
from lance_align.errors import ModelError
from lance_align.images import to_pixels
from lance_align.spec import ImageSpec
from tests import align_models
from tests.pictures import scene


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = weights.build_model(align_models.small_config(), seed=2, warm_up=8)
    directory = tmp_path_factory.mktemp("checkpoint")
    return align_models.save_checkpoint(built, directory, preprocessor=align_models.SMALL_PREPROCESSOR)


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


def _edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _edit_weights(directory: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(directory / "model.safetensors")
    edit(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def _one_line(refused: pytest.ExceptionInfo[ModelError]) -> str:
    message = str(refused.value)
    assert "\n" not in message
    return message


def _encode(directory: Path) -> TowerEncoder:
    """Open and use both towers: some faults show only when weights are read."""
    encoder = TowerEncoder(resolve_spec(str(directory)), directory, device="cpu")
    encoder.encode_images([scene(20, 20, seed=1)])
    encoder.encode_texts(["a cat"])
    return encoder


def test_a_directory_is_described(model: Path) -> None:
    spec = resolve_spec(str(model))
    assert spec.name == str(model.resolve())
    assert spec.revision is None
    assert (spec.family, spec.dim, spec.max_tokens) == ("align", 32, 64)
    assert spec.image == ImageSpec(resize=(76, 76), crop=(64, 64))
    assert len(spec.fingerprint) == 64
    assert type(spec).from_json(spec.to_json()) == spec


def test_the_bundled_model_is_known_by_name() -> None:
    spec = resolve_spec("align-tiny")
    assert (spec.name, spec.revision, spec.family) == ("align-tiny", None, "align")
    encoder = load_encoder(spec, device="cpu")
    found = encoder.encode_texts(["a red car", ""])
    assert found.vectors.shape == (2, spec.dim)
    assert found.reasons == (None, None)


def test_align_bases_own_preprocessor_is_understood() -> None:
    spec = read_image_spec(weights.BASE_PREPROCESSOR, where="file")
    assert spec == ImageSpec(resize=(346, 346), crop=(289, 289))
    np.testing.assert_allclose(spec.scale, 1 / 127.5)
    np.testing.assert_allclose(spec.shift, -1.0)


_numbers = st.floats(0.1, 2.0)


@given(
    config=st.fixed_dictionaries(
        {
            "size": st.fixed_dictionaries({"height": st.integers(20, 40), "width": st.integers(20, 40)}),
            "crop_size": st.fixed_dictionaries({"height": st.integers(1, 20), "width": st.integers(1, 20)}),
            "resample": st.sampled_from([2, 3]),
            "do_center_crop": st.booleans(),
            "do_rescale": st.booleans(),
            "rescale_factor": st.sampled_from([1 / 255, 1 / 127.5]),
            "rescale_offset": st.booleans(),
            "do_normalize": st.booleans(),
            "include_top": st.booleans(),
            "image_mean": st.lists(_numbers, min_size=3, max_size=3),
            "image_std": st.lists(_numbers, min_size=3, max_size=3),
        }
    ),
    left_out=st.sets(st.sampled_from(["resample", "do_center_crop", "rescale_factor", "do_normalize", "include_top"])),
)
@settings(max_examples=40, deadline=None)
def test_every_preprocessor_setting_folds_to_what_transformers_computes(
    config: dict[str, Any], left_out: set[str]
) -> None:
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    config = {key: value for key, value in config.items() if key not in left_out}
    if "do_center_crop" in left_out:
        config.pop("crop_size")
    picture = scene(37, 23, seed=3)
    reference = EfficientNetImageProcessorPil(**config)(picture, return_tensors="np")["pixel_values"][0]
    spec = read_image_spec(config, where="file")
    pixels = to_pixels(picture, spec).astype(np.float64)
    ours = (pixels * spec.scale + spec.shift).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, reference, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"do_resize": False}, "do_resize is false"),
        ({"size": {"max_height": 64}}, "expected size and crop_size as height and width"),
        ({"size": {"shortest_edge": 80, "longest_edge": 99}}, "bounds the longest edge"),
        ({"size": {"shortest_edge": 64}, "do_center_crop": False}, "pictures would differ in size"),
        ({"resample": 0}, "resample 2"),
        ({"crop_size": {"height": 99, "width": 64}}, "larger than size"),
        ({"image_processor_type": "ConvNextImageProcessor"}, "expected one of EfficientNetImageProcessor, CLIP"),
        ({"do_normalize": True, "image_std": [0.5, 0.0, 0.5]}, "ZeroDivisionError"),
        ({"image_mean": [0.5]}, "one or three numbers"),
    ],
)
def test_preprocessors_that_cannot_be_followed_are_refused(copy: Path, change: dict[str, Any], complaint: str) -> None:
    _edit_json(copy / "preprocessor_config.json", **change)
    with pytest.raises(ModelError, match=complaint) as refused:
        resolve_spec(str(copy))
    assert "preprocessor_config.json" in _one_line(refused)


def test_the_processor_may_be_nested_as_transformers_5_saves_it(copy: Path) -> None:
    expected = resolve_spec(str(copy)).image
    raw = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"preprocessor_config\.json is missing"):
        resolve_spec(str(copy))
    (copy / "processor_config.json").write_text(
        json.dumps({"image_processor": raw, "processor_class": "AlignProcessor"})
    )
    assert resolve_spec(str(copy)).image == expected


def test_max_tokens_is_the_least_of_the_limits(copy: Path) -> None:
    _edit_json(copy / "tokenizer_config.json", model_max_length=20)
    encoder = _encode(copy)
    assert encoder.spec.max_tokens == 20
    words = ["cat"] * 18
    exact, longer = encoder.encode_texts([" ".join(words), " ".join([*words, "red", "house"])]).vectors
    np.testing.assert_allclose(exact, longer, atol=1e-5)
    _edit_json(copy / "tokenizer_config.json", model_max_length=int(1e30))
    assert resolve_spec(str(copy)).max_tokens == 64


def test_the_fingerprint_follows_the_weights_and_not_the_place(copy: Path, tmp_path: Path) -> None:
    before = resolve_spec(str(copy)).fingerprint
    (copy / "README.md").write_text("not part of the model")
    moved = copy.rename(tmp_path / "elsewhere")
    assert resolve_spec(str(moved)).fingerprint == before

    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights["text_projection.bias"][3] += 1e-3

    _edit_weights(moved, nudge)
    after = resolve_spec(str(moved)).fingerprint
    assert after != before
    _edit_json(moved / "preprocessor_config.json", resample=3)
    assert resolve_spec(str(moved)).fingerprint not in (before, after)


def test_a_spec_that_does_not_fit_what_is_found_is_refused(copy: Path) -> None:
    spec = resolve_spec(str(copy))
    assert load_encoder(spec, device="cpu").spec == spec
    other = dataclasses.replace(spec, fingerprint="0" * 64)
    with pytest.raises(ModelError, match="other vectors") as refused:
        load_encoder(other, device="cpu")
    assert spec.fingerprint[:12] in _one_line(refused)
    assert "000000000000" in str(refused.value)
    with pytest.raises(ModelError, match="does not fit its files"):
        load_encoder(dataclasses.replace(spec, dim=33), device="cpu")
    with pytest.raises(ModelError, match="unknown model family 'vilt'"):
        load_encoder(dataclasses.replace(spec, family="vilt"), device="cpu")


def test_pickled_weights_are_refused_with_the_remedy(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve_spec(str(copy))
    torch.save(weights, copy / "pytorch_model.bin")
    with pytest.raises(ModelError, match="can run code") as refused:
        resolve_spec(str(copy))
    assert "save_pretrained" in _one_line(refused)


def test_sharded_weights_are_refused_with_the_remedy(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00001.safetensors")
    (copy / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelError, match="sharded") as refused:
        resolve_spec(str(copy))
    assert "max_shard_size" in _one_line(refused)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("model.safetensors", _cut, "not a readable safetensors file"),
        ("model.safetensors", lambda path: path.write_bytes(b"PK\x03\x04 a zip, so a pickle"), "not a readable"),
        ("config.json", lambda path: path.write_text("{"), "not JSON"),
        ("config.json", lambda path: path.write_text("[]"), "expected a JSON object"),
        (
            "config.json",
            lambda path: _edit_json(path, model_type="bert"),
            "a 'bert' model; expected one of align, blip",
        ),
        (
            "config.json",
            lambda path: _edit_json(path, projection_dim="wide"),
            "not a valid configuration",
        ),
        ("config.json", lambda path: _edit_json(path, projection_dim=48), "projection_dim is 48"),
        ("config.json", Path.unlink, r"no config\.json"),
        ("tokenizer.json", lambda path: path.write_text("{}"), "cannot be read"),
        ("tokenizer.json", Path.unlink, "no tokenizer.json"),
        ("preprocessor_config.json", lambda path: path.write_bytes(b"\xff\xfe"), "not JSON"),
    ],
)
def test_damaged_files_are_refused(copy: Path, name: str, damage: Callable[[Path], Any], complaint: str) -> None:
    damage(copy / name)
    with pytest.raises(ModelError, match=complaint) as refused:
        _encode(copy)
    _one_line(refused)


def _drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.__delitem__(name)


def _put(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda weights: weights.__setitem__(name, value)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (_drop("vision_model.embeddings.convolution.weight"), "lacks vision_model.embeddings.convolution.weight"),
        (_drop("text_projection.bias"), "lacks text_projection.bias"),
        (_drop("temperature"), "lacks 'temperature'"),
        (_put("temperature", torch.zeros(2)), "expected one number"),
        (_put("temperature", torch.tensor(float("nan"))), "expected a number above 0"),
        (_put("decoder.weight", torch.zeros(1)), "AlignModel does not have: decoder.weight"),
        (_put("text_model.encoder.layer.9.output.dense.bias", torch.zeros(1)), "more than config.json asks for"),
        (_put("text_projection.bias", torch.zeros(7)), r"has shape \(7,\)"),
        (_put("text_projection.bias", torch.zeros(32, dtype=torch.int8)), "quantised"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    copy: Path, edit: Callable[[dict[str, torch.Tensor]], None], complaint: str
) -> None:
    _edit_weights(copy, edit)
    with pytest.raises(ModelError, match=complaint) as refused:
        _encode(copy)
    _one_line(refused)


def _garbage(name: str) -> Callable[[Path], Any]:
    return lambda directory: (directory / name).write_text("{")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda directory: _cut(directory / "model.safetensors"), "not a readable safetensors file"),
        (lambda directory: _edit_weights(directory, _drop("text_projection.bias")), "lacks text_projection.bias"),
        (lambda directory: _edit_weights(directory, _put("text_projection.bias", torch.zeros(7))), r"has shape \(7,\)"),
        (lambda directory: _edit_weights(directory, _put("decoder.weight", torch.zeros(1))), "does not have: decoder"),
        (lambda directory: _edit_weights(directory, _put("temperature", torch.zeros(1))), "expected a number above 0"),
        (lambda directory: _edit_json(directory / "config.json", projection_dim=16), "projection_dim is 16"),
        (lambda directory: (directory / "tokenizer.json").unlink(), r"has no tokenizer\.json"),
        (_garbage("tokenizer.json"), "the tokenizer in .* cannot be read"),
        (_garbage("preprocessor_config.json"), "is not JSON"),
    ],
)
def test_what_could_not_be_loaded_is_refused_before_anything_starts(
    copy: Path, damage: Callable[[Path], Any], complaint: str
) -> None:
    """A job's driver resolves the model; its workers, which load it, are tried again and again."""
    resolve_spec(copy)
    damage(copy)
    with pytest.raises(ModelError, match=complaint) as refused:
        resolve_spec(copy)
    _one_line(refused)


def _sentence_transformers(copy: Path) -> str:
    inner = copy / "0_CLIPModel"
    inner.mkdir()
    for path in copy.iterdir():
        if path.is_file():
            path.rename(inner / path.name)
    (copy / "modules.json").write_text("[]")
    return rf"there is one in it: name .*{re.escape(str(inner))}"


def _only_modules(copy: Path) -> str:
    (copy / "config.json").unlink()
    (copy / "modules.json").write_text("[]")
    return r"sentence-transformers \(modules\.json\)"


def _adapter(copy: Path) -> str:
    for name in ("config.json", "model.safetensors"):
        (copy / name).unlink()
    return _adapter_beside(copy)


def _adapter_beside(copy: Path) -> str:
    (copy / "adapter_config.json").write_text("{}")
    return r"PEFT adapter \(adapter_config\.json\).*merge_and_unload"


def _open_clip(copy: Path) -> str:
    (copy / "config.json").unlink()
    (copy / "open_clip_config.json").write_text("{}")
    return r"open_clip \(open_clip_config\.json\).*CLIPModel"


def _hub_cache(copy: Path) -> str:
    inner = copy / "snapshots" / "0123"
    inner.mkdir(parents=True)
    (copy / "config.json").rename(inner / "config.json")
    return rf"name {re.escape(str(inner))}"


def _flax(copy: Path) -> str:
    (copy / "model.safetensors").rename(copy / "flax_model.msgpack")
    return r"flax_model\.msgpack, of another framework"


@pytest.mark.parametrize(
    "make", [_sentence_transformers, _only_modules, _adapter, _adapter_beside, _open_clip, _hub_cache, _flax]
)
def test_what_other_programs_write_is_named_with_the_remedy(copy: Path, make: Callable[[Path], str]) -> None:
    said = make(copy)
    with pytest.raises(ModelError, match=said) as refused:
        resolve_spec(copy)
    _one_line(refused)


def test_what_older_transformers_saved_beside_the_model_is_tolerated(copy: Path) -> None:
    def age(weights: dict[str, torch.Tensor]) -> None:
        weights["text_model.embeddings.position_ids"] = torch.arange(96).unsqueeze(0)
        for name in [name for name in weights if name.endswith("num_batches_tracked")]:
            del weights[name]

    _edit_weights(copy, age)
    _encode(copy)


def test_a_vocabulary_alone_makes_a_tokenizer(copy: Path) -> None:
    captions = ["a red cat on the table", "", "Zürich!"]
    expected = _encode(copy).encode_texts(captions).vectors
    vocabulary = json.loads((copy / "tokenizer.json").read_text())["model"]["vocab"]
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=lambda token: int(vocabulary[token]))) + "\n")
    np.testing.assert_allclose(_encode(copy).encode_texts(captions).vectors, expected, atol=1e-6)


def test_a_bert_checkpoint_is_not_align(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=200)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="describes a 'bert' model"):
        resolve_spec(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    ["~no-such-user/x", "align-huge", "", "/no/such/directory", "./nowhere", "a/b/c", "../x", "file\0name", "x" * 5000],
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="unknown model") as refused:
        resolve_spec(name)
    assert "align-tiny" in _one_line(refused)


def test_a_file_or_an_empty_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_spec(str(tmp_path))
    Image.new("RGB", (1, 1)).save(tmp_path / "picture.png")
    with pytest.raises(ModelError, match="unknown model"):
        resolve_spec(str(tmp_path / "picture.png"))


def test_a_revision_belongs_to_hub_models_only(model: Path) -> None:
    for name in (str(model), "align-tiny"):
        with pytest.raises(ModelError, match="not a hub model"):
            resolve_spec(name, revision="main")
    with pytest.raises(ModelError, match="beside a spec"):
        load_encoder(resolve_spec(str(model)), revision="main")


def test_an_unreachable_hub_is_one_line_with_the_remedy() -> None:
    for name in ("kakaobrain/align-base", "some-one/else"):
        with pytest.raises(ModelError, match="hub cannot be reached") as refused:
            resolve_spec(name)
        assert "align-tiny" in _one_line(refused)


def test_a_cached_hub_model_is_used_offline_and_its_commit_recorded(model: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--kakaobrain--align-base"
    shutil.copytree(model, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    script = (
        "from lance_align.encoders import load_encoder, resolve_spec\n"
        "spec = resolve_spec('kakaobrain/align-base')\n"
        "assert load_encoder(spec, device='cpu').encode_texts(['a cat'])[0] is not None\n"
        f"assert resolve_spec('kakaobrain/align-base', revision='{commit}') == spec\n"
        "print(spec.to_json())"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["name"], found["revision"]) == ("kakaobrain/align-base", commit)
    assert found["fingerprint"] == resolve_spec(str(model)).fingerprint


def test_tables_may_name_known_and_allowed_models_only(tmp_path: Path) -> None:
    assert is_allowed("align-tiny")
    assert is_allowed("kakaobrain/align-base")
    assert not is_allowed("someone/align-other")
    assert not is_allowed(str(tmp_path))
    allow_models("someone/align-other", tmp_path)
    assert is_allowed("someone/align-other")
    assert is_allowed(str(tmp_path))
    assert is_allowed(f"{tmp_path}/../{tmp_path.name}")
    assert not is_allowed(str(tmp_path / "below"))
    with pytest.raises(ModelError, match="not a model's name"):
        allow_models(" ")


def test_the_environment_allows_models_too(tmp_path: Path) -> None:
    script = (
        "import sys; from lance_align.encoders import is_allowed; print([is_allowed(name) for name in sys.argv[1:]])"
    )
    names = ["one/model", str(tmp_path), "two/model"]
    environment = {**os.environ, "LANCE_ALIGN_ALLOW_MODELS": os.pathsep.join(["one/model", str(tmp_path), ""])}
    done = subprocess.run(
        [sys.executable, "-c", script, *names], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[True, True, False]"


def test_code_beside_a_checkpoint_is_never_run(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (copy / "evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: ...\n")
    _edit_json(copy / "config.json", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})
    _edit_json(copy / "preprocessor_config.json", auto_map={"AutoImageProcessor": "evil.Evil"})
    auto_map = {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    _edit_json(copy / "tokenizer_config.json", auto_map=auto_map, tokenizer_class="Evil")
    _encode(copy)
    assert not marker.exists()


def test_a_local_model_reaches_for_no_network(model: Path) -> None:
    script = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.sendto'):\n"
        "        raise SystemExit(f'network: {event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
        "import numpy as np\n"
        "from lance_align.encoders import load_encoder\n"
        "encoder = load_encoder(sys.argv[1], device='cpu')\n"
        "encoder.encode_texts(['a cat'])\n"
        "encoder.encode_pixels(np.zeros((1, 64, 64, 3), np.uint8))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", script, str(model)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_a_configuration_as_old_transformers_wrote_it_is_understood(copy: Path) -> None:
    captions = ["a red cat on the table"]
    expected = _encode(copy).encode_texts(captions).vectors
    raw = json.loads((copy / "config.json").read_text())
    old = {
        "_name_or_path": "",
        "add_cross_attention": False,
        "architectures": None,
        "bad_words_ids": None,
        "classifier_dropout": None,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "is_decoder": False,
        "output_attentions": True,
        "output_hidden_states": True,
        "position_embedding_type": "absolute",
        "return_dict": False,
        "torch_dtype": "float32",
        "transformers_version": "4.27.0.dev0",
        "use_cache": True,
    }
    raw["text_config"].update(old)
    raw["vision_config"].update(old)
    (copy / "config.json").write_text(json.dumps({**raw, "torch_dtype": "float32", "transformers_version": None}))
    np.testing.assert_allclose(_encode(copy).encode_texts(captions).vectors, expected, atol=1e-6)


def test_large_weights_are_read_once_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a job, and later processes, take the digest from the cache as long as the file is the same."""
    monkeypatch.setenv("LANCE_ALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "LARGE_BYTES", 1000)
    read: list[str] = []
    original = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: read.append(file.name) or original(file, kind))
    folder = tmp_path / "model"
    folder.mkdir()
    weights = folder / "model.safetensors"

    def of_a_new_process() -> str:
        fingerprints._file_digest.cache_clear()
        return fingerprints.fingerprint(folder)

    weights.write_bytes(b"a" * 2000)
    first = of_a_new_process()
    assert of_a_new_process() == first
    assert len(read) == 1
    times = weights.stat()
    weights.write_bytes(b"b" * 2000)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size, and as old as before
    second = of_a_new_process()
    assert second != first
    assert len(read) == 2
    for kept in (tmp_path / "cache" / "digests").iterdir():
        kept.write_text("rubbish")
    assert of_a_new_process() == second
    assert len(read) == 3
    monkeypatch.setenv("LANCE_ALIGN_CACHE", "")  # nothing is to be kept
    assert of_a_new_process() == second
