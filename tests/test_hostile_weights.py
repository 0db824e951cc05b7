"""Files that call themselves safetensors: refused in one line, nothing run, nothing large allocated."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lance_align.benchmarks.weights import build_model
from lance_align.encoders import resolve_spec
from lance_align.encoders.two_towers import TowerEncoder
from lance_align.errors import LanceAlignError, ModelError
from tests.align_models import SMALL_PREPROCESSOR, save_checkpoint, small_config
from tests.pictures import scene
from tests.tripwires import tripwires

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = build_model(small_config(), seed=2, warm_up=8)
    directory = save_checkpoint(built, tmp_path_factory.mktemp("checkpoint"), preprocessor=SMALL_PREPROCESSOR)
    use(directory)  # whatever is imported at first use is imported here
    return directory


@pytest.fixture
def copy(model: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


def use(directory: Path) -> None:
    """Open a checkpoint and use both towers."""
    encoder = TowerEncoder(resolve_spec(str(directory)), directory, device="cpu")
    encoder.encode_images([scene(20, 20, seed=1)])
    encoder.encode_texts(["a cat"])


class Touch:
    """Pickles to a call that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", ["pickle", "torch", "torch-legacy"])
def test_a_pickle_with_the_name_of_weights_is_not_unpickled(copy: Path, tmp_path: Path, save: str) -> None:
    marker = tmp_path / "ran"
    if save == "pickle":
        (copy / WEIGHTS).write_bytes(pickle.dumps(Touch(marker)))
    else:
        torch.save({"x": Touch(marker)}, copy / WEIGHTS, _use_new_zipfile_serialization=save == "torch")
    with tripwires() as seen, pytest.raises(ModelError, match="is not a readable safetensors file") as refused:
        use(copy)
    assert seen == []
    assert not marker.exists()
    assert str(refused.value).isprintable()


def test_pickles_beside_the_weights_are_not_opened(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    names = ("pytorch_model.bin", "training_args.bin", "model.pt", "optimizer.pkl")
    for name in names:
        (copy / name).write_bytes(pickle.dumps(Touch(marker)))
    with tripwires(*(copy / name for name in names)) as seen:
        use(copy)
    assert seen == []
    assert not marker.exists()


def test_an_index_leads_nowhere(copy: Path, tmp_path: Path) -> None:
    """Beside whole weights it is not read, and alone it is refused before anything it names is."""
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.copy(copy / WEIGHTS, elsewhere)
    index = {"weight_map": {"temperature": "../elsewhere.safetensors", "x": str(elsewhere), "y": "/etc/passwd"}}
    (copy / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with tripwires(elsewhere, Path("/etc/passwd"), copy / f"{WEIGHTS}.index.json") as seen:
        use(copy)
        (copy / WEIGHTS).unlink()
        with pytest.raises(ModelError, match="sharded"):
            use(copy)
    assert seen == []


def test_links_and_special_files(copy: Path, model: Path) -> None:
    """A link to weights is how the hub's cache keeps them; a device or a pipe could be read for ever."""
    (copy / WEIGHTS).unlink()
    for target in ("/dev/zero", str(copy / "nothing"), str(copy / WEIGHTS)):
        (copy / WEIGHTS).symlink_to(target)
        with pytest.raises(ModelError, match="no weights"):
            use(copy)
        (copy / WEIGHTS).unlink()
    os.mkfifo(copy / WEIGHTS)
    with pytest.raises(ModelError, match="no weights"):
        use(copy)
    (copy / WEIGHTS).unlink()
    (copy / WEIGHTS).symlink_to(model / WEIGHTS)
    use(copy)


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[Any], offsets: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"temperature": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


HOSTILE = {
    "nothing": b"",
    "less than a length": b"\0" * 7,
    "no header": struct.pack("<Q", 0),
    "a length of 2^63": safetensors(b"{}", length=2**63),
    "a length of 2^64 - 1": safetensors(b"{}", length=2**64 - 1),
    "a length past the end": safetensors(b"{}", length=1000),
    "a length of 1 TB": safetensors(b"{}", length=2**40),
    "not JSON": safetensors(b"not json"),
    "not an object": safetensors([1]),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "deep": safetensors(b'{"a":' * 50_000),
    "a shape of 2^62": safetensors(tensor([2**62], [0, 2**64 - 1])),
    "a shape that overflows": safetensors(tensor([2**32, 2**32], [0, 4]), bytes(4)),
    "a negative shape": safetensors(tensor([-1], [0, 4]), bytes(4)),
    "a shape of 10^30": safetensors(tensor([10**30], [0, 4]), bytes(4)),
    "more than the file holds": safetensors(tensor([10**9], [0, 4 * 10**9]), bytes(4)),
    "offsets backwards": safetensors(tensor([1], [4, 0]), bytes(4)),
    "offsets before the start": safetensors(tensor([1], [-4, 0]), bytes(4)),
    "a gap": safetensors(tensor([1], [4, 8]), bytes(8)),
    "bytes left over": safetensors(tensor([1], [0, 4]), bytes(8)),
    "an unknown type": safetensors(tensor([1], [0, 4], dtype="OBJECT"), bytes(4)),
    "metadata that is not text": safetensors({"__metadata__": {"format": {"a": 1}}}),
    "two tensors on one place": safetensors(
        {**tensor([1], [0, 4]), "text_model.x": tensor([1], [0, 4])["temperature"]}
    ),
    "no tensors": safetensors({}),
    "a header of 90 MB": safetensors(b"{" + b" " * 90_000_000 + b"}"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(copy: Path, case: str) -> None:
    (copy / WEIGHTS).write_bytes(HOSTILE[case])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tripwires() as seen, pytest.raises(ModelError) as refused:
        use(copy)
    assert seen == []
    assert str(refused.value).isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # kB


def test_a_flipped_byte_anywhere_in_the_header_is_an_error_or_harmless(copy: Path) -> None:
    good = (copy / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for place in range(0, header, max(1, header // 150)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << (place % 8)
        (copy / WEIGHTS).write_bytes(damaged)
        try:
            use(copy)
        except LanceAlignError as error:
            assert str(error).isprintable()  # noqa: PT017
