"""Remote: how this machine speaks with a server. ``import dreamlake`` does not load it; httpx is named in ``lake.py``
and ``ways.py`` alone. Where a session is meant to go is pure: ``wire/remotes.py``.
"""
