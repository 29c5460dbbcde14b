"""The agent: the one process of a user on a node that writes session directories.

``core`` decides, ``store`` writes, ``loop`` is where they meet; ``lifecycle``, ``status`` and ``cli`` start, describe
and command it.
"""
