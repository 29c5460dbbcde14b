"""Selftest: two nodes try on a file system of theirs what Dreamlake asks of it.

Both run the same checks in the same order. A check is a file with ``NAME``; ``measure(side)``, what this node does and
sees; and ``judge(first, second)``, pure, what follows from what both have seen. Nothing is trusted for the talk between
the two but that a new file is seen some time later (``post.py``).
"""
