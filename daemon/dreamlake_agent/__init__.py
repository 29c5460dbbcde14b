"""The agent: the one process of a user on a node that writes session directories.

``core`` decides, ``store`` writes, ``remote`` sends, ``loop`` is where they meet; ``lifecycle`` starts and ends it,
``observe`` describes it, ``cli`` commands it.
"""
