"""A tar archive, read from its first header to its end mark, so that nothing in it is passed over.

Python's tarfile takes a header that does not check, is cut, or is missing for the end of the archive. Here each of them
is an error. The end is two blocks of zeros and nothing but zeros behind them. Two things cannot be told from an end:
members at the very end that became zeros, and names in pax records, which have no checksum.
"""

from __future__ import annotations

import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Self, cast

import pyarrow as pa

from lance_align.errors import SourceError
from lance_align.jobs.sources.location import Location, first_line

MAX_RECORDS_BYTES = 2**20  # of a long name or of pax records, which tarfile reads at once
MAX_PADDING_BYTES = 2**20  # of zeros at the end: writers pad to 10 KiB; more is a copy that was not finished
BUFFER_BYTES = 2**20  # an object store is asked for so much at once

_COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\x28\xb5\x2f\xfd", "zstd"))
_XZ = b"\xfd7zXZ\x00"
_RECORDS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
# What tarfile and lzma raise for damage; the last four only for records of hostile archives.
_DAMAGE = (tarfile.TarError, lzma.LZMAError, EOFError, ValueError, LookupError, ArithmeticError, RecursionError)
_PACK_AGAIN = "copy or pack the shard again"


class _Archive(tarfile.TarFile):
    """A `TarFile` that counts blocks of zeros; with ``ignore_zeros`` it goes on behind them."""

    zeros = 0  # blocks of them since the last member


class _Header(tarfile.TarInfo):
    """A header that is whole, or an error that tarfile does not take for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _RECORDS and header.size > MAX_RECORDS_BYTES:
            raise tarfile.ReadError(f"a name or its records take {header.size} bytes; the limit is {MAX_RECORDS_BYTES}")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> Self:  # shadows the module here, as in the method that it replaces
        archive = cast(_Archive, tarfile)
        try:
            header = super().fromtarfile(archive)
        except _EndOfFileHeaderError:
            archive.zeros += 1
            if archive.zeros * 512 > MAX_PADDING_BYTES:
                raise _ReadError(f"over {MAX_PADDING_BYTES} bytes of zeros at its end; {_PACK_AGAIN}") from None
            raise
        except _EmptyHeaderError:
            if archive.zeros >= 2:  # the end mark
                raise
            raise _ReadError(f"it ends without its end mark, so it may have been cut; {_PACK_AGAIN}") from None
        except _HeaderError as error:
            raise _ReadError(f"the header at byte {archive.offset} is damaged ({error}); {_PACK_AGAIN}") from None
        if archive.zeros:
            raise _ReadError(
                f"a member follows zeros before byte {archive.offset}: damage, or two archives joined; {_PACK_AGAIN}"
            )
        return header


_ReadError, _HeaderError = tarfile.ReadError, tarfile.HeaderError
_EndOfFileHeaderError: type[tarfile.HeaderError] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_EmptyHeaderError: type[tarfile.HeaderError] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]


@contextmanager
def opened(shard: Location, *, skims: bool) -> Iterator[Iterator[tuple[tarfile.TarInfo, Any]]]:
    """The members of an archive, plain or compressed with gzip, bzip2, xz or zstd, each with its archive.

    Compressed data is read to its end, through all its streams and checksums.

    Args:
        skims: no content is wanted: a plain local file is not read through then.

    Raises:
        SourceError: it is damaged, cut, or no archive. The cause is an OSError where storage or decompression failed.
    """
    try:
        with (
            _stream(shard, skims=skims) as (stream, mode),
            _Archive.open(
                fileobj=stream,
                mode=cast(Any, mode),
                tarinfo=_Header,
                ignore_zeros=True,
                encoding="utf-8",
                errors="surrogateescape",
            ) as archive,
        ):
            yield _members(archive)
    except SourceError:
        raise
    except (*_DAMAGE, pa.ArrowException, OSError) as error:
        raise SourceError(f"{shard.uri} cannot be read as a tar shard: {first_line(error)}") from error


def content(archive: Any, member: tarfile.TarInfo) -> bytes:
    """The bytes of a regular file, the last member that was given."""
    file = archive.extractfile(member)
    return b"" if file is None else bytes(file.read())


def _members(archive: _Archive) -> Iterator[tuple[tarfile.TarInfo, Any]]:
    while (member := archive.next()) is not None:
        cast(Any, archive).members.clear()  # tarfile keeps them all
        yield member, archive


@contextmanager
def _stream(shard: Location, *, skims: bool) -> Iterator[tuple[IO[bytes], str]]:
    filesystem = shard.filesystem
    with filesystem.open_input_stream(shard.path, compression=None) as stream:
        head = stream.read(len(_XZ))
    kind = next((name for magic, name in _COMPRESSIONS if head.startswith(magic)), None)
    if kind is None and head != _XZ and skims and shard.is_local:
        with filesystem.open_input_file(shard.path) as file:
            yield cast(IO[bytes], file), "r:"
        return
    with filesystem.open_input_stream(shard.path, compression=kind, buffer_size=BUFFER_BYTES) as stream:
        if head == _XZ:
            with lzma.open(cast(IO[bytes], stream)) as plain:
                yield cast(IO[bytes], plain), "r|"
        else:
            yield cast(IO[bytes], stream), "r|"
