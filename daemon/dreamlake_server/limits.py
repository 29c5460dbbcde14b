"""Every limit of the server, with its unit. What is over one is answered with 413 or 400 and told by name."""

from __future__ import annotations

# What is read may take 64 times as much memory: an empty list of msgpack is one byte, and of Python 56.
BODY_BYTES = 16 << 20  # of a request, packed or not; a part of a blob and a multipart file have limits of their own
PUSH_BYTES = 32 << 20  # of a push, packed or not
UNPACKED_RATIO = 100  # that a packed body may grow by, beyond the first MiB; rows of JSON grow by 10
RECORDS = 500_000  # in one push
RECORD_BYTES = 8 << 20  # of one record of a log
LOGS = 20_000  # named in one push or status
BLOBS = 10_000  # named in one status
ANSWER_BYTES = 16 << 20  # of records in one answer, unpacked, unless one segment is larger
NAME_BYTES = 1024  # of a track's name and a file's path; a workspace, a session and a user have 255 (wire/names.py)
PAGE_ROWS = 10_000  # in one answer
PAGE_ROWS_DEFAULT = 1_000
SCAN_ROWS = 200_000  # looked at for one page of a search; then the page ends early, with a cursor
FILE_BYTES = 5 << 40  # of one blob

SEGMENT_BYTES = 1 << 20  # of a segment's records, uncompressed, unless one record is larger
SEGMENT_ROWS = 10_000
TAIL_BYTES = 64 << 10  # a last segment below this grows with the next push, so that small pushes make no crumbs
RACE_TRIES = 20  # of a push that lost against another one for the same log
APPEND_BYTES = 8 << 20  # in one transaction: MongoDB refuses one that its cache cannot hold
APPEND_LOGS = 1_000  # in one transaction

PART_BYTES = 32 << 20  # of a blob's parts, unless that makes more than PARTS
PARTS = 10_000
URLS = 100  # handed out at once; ask again for more
URL_SECONDS = 3600  # a part's URL is good for so long

TOKEN_FAILURES = 20  # from one address within TOKEN_FAILURE_SECONDS; then 429
TOKEN_FAILURE_SECONDS = 60
STOP_SECONDS = 10  # that a graceful stop waits for requests under way
PURGE_DAYS = 30  # a deleted session is kept so long
