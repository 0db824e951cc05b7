"""The one door to the network for URLs found in data; shut unless the user names hosts.

policy     `FetchPolicy`: which hosts, which ports, how long
addresses  which addresses are public
client     `fetch`: a URL to its bytes, or a `RowError`
dialling   httpcore2's sockets, connected to checked addresses only and closed at the deadline

Nothing else in this package opens a connection for data. Model weights come through `lance_align.encoders.hub`, for a
name that the user gave.
"""

from __future__ import annotations

from lance_align.fetching.client import fetch
from lance_align.fetching.policy import NO_URLS, FetchPolicy, fetch_policy

__all__ = ["NO_URLS", "FetchPolicy", "fetch", "fetch_policy"]
