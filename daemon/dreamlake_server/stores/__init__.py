"""The ports to whatever keeps things, and the stores behind them: ``meta`` (documents and log segments), ``blobs``
(bytes by SHA-256), ``tokens``. A store knows nothing of HTTP, of what a row says, or of the other stores; all of one
port pass one suite (tests/contract/). What a store raises of its own is a :class:`StoreUnavailable`.
"""

from __future__ import annotations


class StoreUnavailable(Exception):
    """A store cannot be reached or does not take what it is given, now. Nothing was acked; try again later.

    Whether a write that raised this was kept is not known: callers must be able to ask for it again.
    """
