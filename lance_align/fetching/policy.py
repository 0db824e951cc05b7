"""What may be fetched: hosts by name, networks, time."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec

from lance_align.errors import ArgumentError, MissingExtraError
from lance_align.fetching.addresses import Address, holds, is_public

WEB_PORTS = (80, 443)
_PATTERN = re.compile(r"(?P<host>\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:(?P<port>[1-9][0-9]{0,4}))?")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """Which URLs `fetch` gets; small, and sent to workers. Whatever it says, addresses must be public.

    Attributes:
        hosts: ``"images.example.com"``; ``"*.example.org"`` for every name below it, but not itself; ``"*"`` for every
            host. Ports 80 and 443, or the one of ``"images.example.com:8443"``. Upper case and a last dot mean nothing;
            names in other scripts are written in their ASCII form (``xn--…``). Without hosts nothing is fetched.
        allowed_networks: networks whose addresses count as public, for example ``("10.20.0.0/16",)`` for an image
            server of one's own. Not on the command line on purpose: whoever writes it reaches into that network.
        timeout_s: for one URL, from its first try to the last byte, redirects and repeats included.
        ca_file: a PEM file of the certificate authorities to trust, in place of the system's.

    Raises:
        ArgumentError: a host or a network that cannot be read, or a time that is not above 0.
    """

    hosts: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    timeout_s: float = 30.0
    ca_file: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", tuple(_checked_host(host) for host in _listed("hosts", self.hosts)))
        networks = tuple(_checked_network(text) for text in _listed("allowed_networks", self.allowed_networks))
        object.__setattr__(self, "allowed_networks", networks)
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ArgumentError(f"timeout_s={self.timeout_s}; expected a number of seconds above 0")

    def allows(self, host: str, port: int) -> bool:
        """Whether a URL may name this host (lower case, ASCII, without a last dot) and port."""
        return any(_matches(pattern, host, port) for pattern in self.hosts)

    def allows_address(self, address: Address) -> bool:
        """Whether a connection to this address may be opened."""
        return is_public(address) or holds(self.allowed_networks, address)


def fetch_policy(hosts: Sequence[str] | FetchPolicy) -> FetchPolicy:
    """The policy of a list of hosts, as ``--fetch-hosts`` gives it; a policy stays as it is.

    Raises:
        ArgumentError: as `FetchPolicy`.
        MissingExtraError: there are hosts to fetch from, and the HTTP client is not installed.
    """
    policy = hosts if isinstance(hosts, FetchPolicy) else FetchPolicy(hosts=tuple(_listed("fetch_hosts", hosts)))
    if policy.hosts and (find_spec("httpx2") is None or find_spec("httpcore2") is None):
        raise MissingExtraError("httpx2", "urls")
    return policy


def _listed(name: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise ArgumentError(f"{name}={values!r:.80}; expected a list of texts")
    return list(values)


def _checked_host(pattern: str) -> str:
    text = pattern.strip().lower()
    host, colon, port = text.rpartition(":")
    text = f"{host.removesuffix('.')}:{port}" if colon and port.isdecimal() and host else text.removesuffix(".")
    found = _PATTERN.fullmatch(text)
    if found is None or int(found["port"] or 1) > 65535:
        raise ArgumentError(
            f"{pattern!r:.80} is not a host to fetch from; expected a name such as images.example.com, "
            "*.example.org or images.example.com:8443, without http:// and path"
        )
    return text


def _checked_network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ArgumentError(f"allowed_networks holds {text!r:.80}: {error}; expected one such as 10.1.0.0/16") from None


def _matches(pattern: str, host: str, port: int) -> bool:
    found = _PATTERN.fullmatch(pattern)
    assert found is not None
    wanted = found["host"].strip("[]")
    if port not in ((int(found["port"]),) if found["port"] else WEB_PORTS):
        return False
    return wanted in ("*", host) or (wanted.startswith("*.") and host.endswith(wanted[1:]) and host != wanted[1:])


NO_URLS = FetchPolicy()
