"""One GET on httpcore2, whose sockets are opened here: to checked addresses only, and closed at the deadline.

httpcore2 asks its network backend for a connection to a host. This one resolves the name, refuses it unless every
address may be dialled, and dials one of them, so that what was checked is what is connected. TLS and the Host header
go by the name. A connection serves one request: bytes that a server sends beyond its answer reach no other row.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from typing import Any

import httpcore2
import httpx2

from lance_align.errors import RowError
from lance_align.fetching.client import Deadline, Reply, Resolve, TransientError
from lance_align.fetching.policy import FetchPolicy

CONNECT_TIMEOUT_S = 10.0  # of one address, so that a dead one leaves time for the next
_HEADERS = (
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),  # what is compressed could hold a thousand times its size
    ("Connection", "close"),
    ("User-Agent", "lance-align"),
)


def get(url: httpx2.URL, *, policy: FetchPolicy, max_bytes: int, resolve: Resolve | None, deadline: Deadline) -> Reply:
    """One request and its answer; redirects are not followed.

    Raises:
        RowError: refused, too large, too late, or not HTTP.
        TransientError: the connection failed.
    """
    origin = httpcore2.Origin(url.scheme.encode(), url.raw_host, url.port or (443 if url.scheme == "https" else 80))
    target = httpcore2.URL(scheme=origin.scheme, host=origin.host, port=url.port, target=url.raw_path)
    connection = httpcore2.HTTPConnection(
        origin,
        ssl_context=_ssl_context(policy.ca_file) if url.scheme == "https" else None,
        network_backend=_Dialler(policy, resolve or system_addresses, deadline),
    )
    try:
        with connection, connection.stream("GET", target, headers=(("Host", url.netloc), *_HEADERS)) as response:
            return _reply(response, max_bytes)
    except (RowError, TransientError):
        raise
    except httpcore2.TimeoutException:
        deadline.left_s()
        raise TransientError("timed out") from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise RowError("fetch", f"its certificate is not valid: {error.__cause__.verify_message}") from None
        raise TransientError(f"{type(error).__name__}: {error}") from None
    except Exception as error:  # noqa: BLE001 - whatever a server sends costs one row, never the job
        raise RowError("fetch", f"{type(error).__name__}: {error}") from None


def system_addresses(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says.

    Raises:
        OSError: nothing.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _reply(response: httpcore2.Response, max_bytes: int) -> Reply:
    headers = {name.lower(): value for name, value in response.headers}
    phrase: Any = response.extensions.get("reason_phrase", b"")
    location = headers.get(b"location")
    if response.status != 200:
        where = location.decode("utf-8", "replace") if location is not None else None
        return Reply(response.status, phrase.decode("ascii", "replace"), where, b"")
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"", b"identity"):
        raise RowError("fetch", f"answered in {encoding.decode('ascii', 'replace')}, though only plain was asked for")
    announced = headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) > max_bytes:
        raise RowError("too_large", f"{int(announced)} bytes, the limit is {max_bytes}")
    parts: list[bytes] = []
    size = 0
    for part in response.iter_stream():
        size += len(part)
        if size > max_bytes:
            raise RowError("too_large", f"over {max_bytes} bytes, which is the limit")
        parts.append(part)
    return Reply(200, "", None, b"".join(parts))


@functools.lru_cache(maxsize=8)
def _ssl_context(ca_file: str | None) -> ssl.SSLContext:
    """Certificates and host names are checked; reading the authorities takes some 20 ms."""
    return httpcore2.default_ssl_context() if ca_file is None else ssl.create_default_context(cafile=ca_file)


class _Dialler(httpcore2.NetworkBackend):
    def __init__(self, policy: FetchPolicy, resolve: Resolve, deadline: Deadline) -> None:
        self._policy = policy
        self._resolve = resolve
        self._deadline = deadline

    def connect_tcp(self, host: str, port: int, *_args: Any, **_kwargs: Any) -> httpcore2.NetworkStream:
        addresses = self._addresses(host, port)
        for place, address in enumerate(addresses):
            try:
                stream = httpcore2.SyncBackend().connect_tcp(
                    address, port, timeout=min(CONNECT_TIMEOUT_S, self._deadline.left_s())
                )
                return _TimedStream(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if place == len(addresses) - 1:
                    raise
        raise RowError("fetch", f"{host} has no address")

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = [ipaddress.ip_address(text) for text in self._resolve(host, port)]
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            failure = f"{host} was not found: {error}"
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                raise TransientError(failure) from None
            raise RowError("fetch", failure) from None
        self._deadline.left_s()
        for address in found:
            if not self._policy.allows_address(address):
                raise RowError("fetch", f"{host} is {address}, which is not a public address")
        return [str(address) for address in found]


class _TimedStream(httpcore2.NetworkStream):
    """A connection whose every step has only the time that is left; a server that drips bytes gains none."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, *_args: Any, **_kwargs: Any) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, *_args: Any, **_kwargs: Any) -> None:
        self._stream.write(buffer, self._deadline.left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_args: Any, **_kwargs: Any
    ) -> httpcore2.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left_s())
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
