"""Where a system cannot limit a process, images are decoded all the same, within their time, and it is said once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lance_align.errors import RowError
from lance_align.sandbox import Decoder
from lance_align.sandbox.process import decoder_process
from lance_align.spec import ImageSpec
from lance_align.testing import Faults
from tests.corpus import png

DECODER = Decoder(image=ImageSpec(resize=(4, 4), crop=(4, 4)), seconds=1.0)
NO_MODULE = "raise ImportError('no module named resource')"
# As on macOS, where every limit of the address space is refused.
NO_MEMORY_LIMIT = """
RLIM_INFINITY, RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_AS = -1, 0, 1, 2, 3

def getrlimit(kind):
    return -1, -1

def setrlimit(kind, limits):
    if kind == RLIMIT_AS:
        raise ValueError("current limit exceeds maximum limit")
"""


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The next image starts a process, which finds modules where this one finds them; so does the first afterwards."""
    decoder_process.end()
    monkeypatch.setattr(decoder_process, "_has_told", False)
    yield
    decoder_process.end()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("module", "missing"),
    [(NO_MODULE, "core dumps, files written, open files, memory"), (NO_MEMORY_LIMIT, "memory")],
)
def test_decoding_goes_on_without_limits_of_a_process(
    module: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "resource.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    with Faults() as faults:
        faults.at("decode", "hang", marker=png(2))
        assert DECODER.decode(png(1)).pixels.shape == (4, 4, 3)
        with pytest.raises(RowError, match="timeout: not decoded within the 1 s of decode_seconds"):
            DECODER.decode(png(2))  # in two processes, each without limits
    assert [record.getMessage() for record in caplog.records] == [
        f"pictures are decoded without a limit of {missing}, which this system cannot set; decode_seconds holds"
    ]


@pytest.mark.usefixtures("fresh")
def test_a_system_that_sets_every_limit_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    assert DECODER.decode(png(1)).pixels.shape == (4, 4, 3)
    assert caplog.records == []
