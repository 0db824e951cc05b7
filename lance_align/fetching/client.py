"""A URL to its bytes, under a policy: one request a time, on a connection of its own, every redirect looked at anew."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lance_align.errors import MissingExtraError, RowError
from lance_align.fetching.policy import FetchPolicy

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 5
ATTEMPTS = 3  # servers fail in passing; a URL that fails three times is a row's reason
RETRY_PAUSE_S = 0.2
TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:.]+")

# (host, port) to the addresses it has, as text; may raise OSError.
Resolve = Callable[[str, int], Sequence[str]]


class Reply(NamedTuple):
    """What one request gave: a body, or where else to look."""

    status: int
    phrase: str
    location: str | None
    body: bytes


class TransientError(Exception):
    """A failure that a second try may not meet; stays inside this package."""


class Deadline:
    """The moment a URL has used up its time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds left, above 0.

        Raises:
            RowError: `fetch`, when there are none.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise RowError("fetch", f"took longer than {self._seconds:g} s")
        return left


def fetch(url: str, policy: FetchPolicy, *, max_bytes: int, resolve: Resolve | None = None) -> bytes:
    """Get what a URL holds. No cookies, no credentials, no proxies, no Referer; certificates are verified.

    The host must be on the policy's list, and every address it has must be public; exactly such an address is dialled,
    so that neither DNS nor a spelling of an address leads elsewhere. Redirects, at most `MAX_REDIRECTS`, go through
    the same checks and never from https to http. The body must come as it is: compressed answers are refused.

    Args:
        url: http or https.
        policy: hosts and time.
        max_bytes: of the body, of those announced and of those that come.
        resolve: in place of the system's resolver, whose own time limits hold beside the policy's.

    Returns:
        The body of a 200 answer.

    Raises:
        RowError: `fetch` when it is refused or fails, `too_large` when the body is; nothing else for what servers do.
        MissingExtraError: the HTTP client is not installed.
    """
    deadline = Deadline(policy.timeout_s)
    target = _checked(url, policy)
    try:
        for attempt in range(ATTEMPTS):
            try:
                return _follow(target, policy, max_bytes, resolve, deadline)
            except TransientError as error:
                pause_s = RETRY_PAUSE_S * 2**attempt
                if attempt == ATTEMPTS - 1 or deadline.left_s() < pause_s:
                    raise RowError("fetch", str(error)) from None
                time.sleep(pause_s)
    except RowError as error:
        raise RowError(error.kind, f"{shown(target)}: {error.detail}") from None
    raise AssertionError("unreachable")


def _follow(
    target: httpx2.URL, policy: FetchPolicy, max_bytes: int, resolve: Resolve | None, deadline: Deadline
) -> bytes:
    from lance_align.fetching.dialling import get  # imports the HTTP client

    for _ in range(MAX_REDIRECTS + 1):
        reply = get(target, policy=policy, max_bytes=max_bytes, resolve=resolve, deadline=deadline)
        if reply.status == 200:
            return reply.body
        if reply.status in TRANSIENT_STATUSES:
            raise TransientError(f"answered {reply.status} {reply.phrase}")
        if reply.status not in _REDIRECTS or reply.location is None:
            raise RowError("fetch", f"answered {reply.status} {reply.phrase}")
        target = _redirected(target, reply.location, policy)
    raise RowError("fetch", f"more than {MAX_REDIRECTS} redirects")


def _redirected(target: httpx2.URL, location: str, policy: FetchPolicy) -> httpx2.URL:
    import httpx2

    try:
        joined = str(target.join(location))
    except (httpx2.InvalidURL, ValueError) as error:
        raise RowError("fetch", f"redirects to what is not a URL: {error}") from None
    try:
        following = _checked(joined, policy)
    except RowError as error:
        raise RowError("fetch", f"redirects to {error.detail}") from None
    if (target.scheme, following.scheme) == ("https", "http"):
        raise RowError("fetch", f"redirects from https to {shown(following)}")
    return following


def _checked(text: str, policy: FetchPolicy) -> httpx2.URL:
    """The URL, its host in lower case and ASCII, if the policy lists it."""
    try:
        import httpx2
    except ImportError as error:
        raise MissingExtraError("httpx2", "urls") from error
    try:
        url = httpx2.URL(text)
        host = url.raw_host.decode("ascii").lower().removesuffix(".")
        url = url.copy_with(host=host)
        port = url.port or (443 if url.scheme == "https" else 80)
    except (httpx2.InvalidURL, ValueError) as error:
        raise RowError("fetch", f"{_cut(text)} is not a URL: {error}") from None
    if url.scheme not in ("http", "https"):
        raise RowError("fetch", f"{_cut(text)} is neither http nor https")
    if url.userinfo:
        raise RowError("fetch", f"{shown(url)}: URLs with a user name or password are not fetched")
    if _HOST.fullmatch(host) is None:
        raise RowError("fetch", f"{_cut(text)} names no host")
    if not policy.allows(host, port):
        raise RowError(
            "fetch", f"{shown(url)}: {host} at port {port} is not on the list of hosts; --fetch-hosts names them"
        )
    return url


def shown(url: httpx2.URL) -> str:
    """A URL for a message: without user, query and fragment, which may hold secrets."""
    return _cut(f"{url.scheme}://{url.netloc.decode('ascii')}{url.path}")


def _cut(text: str) -> str:
    return text.split("?", 1)[0][:120]
