"""A server that answers, described: free of the SDK that calls it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Server:
    """Where to ask and what is there. ``timeout`` in seconds, of a whole attempt."""

    base_url: str
    key: str = field(default="", repr=False)
    timeout: float = 60.0
    concurrency: int = 16
    has_schema: bool = True
    has_logprobs: bool = False
    has_images: bool = False


def is_loopback(host: str) -> bool:
    """Whether a host name or address (without brackets) is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
