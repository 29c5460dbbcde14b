"""PURE: what the client, the agent and the reader must agree on, as functions of bytes and values.

Operations (``ops``), how they are framed (``codec``), the conversation between a sender and a listener (``window``,
``messages``), names (``names``), JSON (``jsons``) and what an operation does to a session (``apply``, ``state``). This
folder may not read a clock, a disk, a socket, a random source or the environment, start a thread, or log.
"""
