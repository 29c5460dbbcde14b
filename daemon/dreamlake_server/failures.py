"""Failures: how many wrong tokens came from where, lately. Whoever holds a right one is not slowed down by them."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict, deque

from dreamlake_server import limits

_ADDRESSES = 10_000  # remembered; then the one that was wrong the longest ago is forgotten


class Failures:
    def __init__(self) -> None:
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, address: str, now: float) -> int:
        """Remember a failure at ``now`` (seconds on any clock that does not go back). 0, or after how many seconds the
        address may be wrong again."""
        key = _network(address)
        times = self._times.setdefault(key, deque(maxlen=limits.TOKEN_FAILURES))
        self._times.move_to_end(key)
        if len(self._times) > _ADDRESSES:
            self._times.popitem(last=False)
        # Those that were refused are not counted: who goes on trying is let in again after the time all the same.
        if len(times) == limits.TOKEN_FAILURES and now - times[0] < limits.TOKEN_FAILURE_SECONDS:
            return max(1, round(limits.TOKEN_FAILURE_SECONDS - (now - times[0])))
        times.append(now)
        return 0

    def __len__(self) -> int:
        return len(self._times)


def _network(address: str) -> str:
    """Who holds one IPv6 address holds the 2^64 beside it, too."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
