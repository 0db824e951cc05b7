"""Which addresses belong to the public internet.

The lists are IANA's special-purpose registries (iana.org/assignments/iana-ipv4-special-registry and
iana-ipv6-special-registry, read November 2026), written out because what `ipaddress.is_global` says has changed between
patch releases of Python, and because it takes some tunnels to private networks for public addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for the machine itself
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT; one cloud's metadata service is 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host, reached from every virtual machine there
        "169.254.0.0/16",  # link-local: metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols; another metadata service is 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112, answers for private names
        "192.52.193.0/24",  # automatic multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)

# Public IPv6 unicast is 2000::/3. What lies outside needs no list: ::1, IPv4-mapped and -compatible, NAT64 64:ff9b::/96
# and 64:ff9b:1::/48, discard 100::/64, unique-local fc00::/7, link-local fe80::/10, site-local fec0::/10, ff00::/8.
_UNICAST_V6 = IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocols: Teredo, benchmarking 2001:2::/48, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: holds any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """Whether an address is one that the whole internet reaches under the same name."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    return (
        address.scope_id is None
        and address in _UNICAST_V6
        and not any(address in network for network in _NOT_PUBLIC_V6)
    )


def holds(networks: Iterable[str], address: Address) -> bool:
    """Whether one of the networks (as text, for example ``"10.1.0.0/16"``) contains an address."""
    return any(address in ip_network(text) for text in networks)
