"""A session directory as Python values: used by a session's own reads, the commands and the agent's recovery.

This folder reads. It may not write, lock, rename or unlink anything, and it believes no file: half lines, zero blocks,
hand edits and journals that nobody has applied yet are all expected here.
"""
