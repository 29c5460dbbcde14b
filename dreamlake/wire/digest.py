"""SHA-256 of what is short: names and paths. PURE.

``hashlib`` brings OpenSSL with it: 4 MiB and 7 ms of a process that trains. The standard library's ``random`` goes the
same way round it.
"""

from __future__ import annotations

try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]  # Python 3.12 and later
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore,no-redef]
    except ImportError:
        from hashlib import sha256 as _sha256


def sha256_hex(data: bytes) -> str:
    """64 hex digits.

    >>> sha256_hex(b"loss")[:8]
    '2ea71c18'
    """
    return str(_sha256(data).hexdigest())
