"""The server as people run it: processes on loopback, over stores that are killed, with senders that must lose nothing.

A server's whole life is in ``lake``; ``origins`` are directories that grow, ``sender`` is whoever uploads them as
docs/push.md says it, ``account`` holds what came of it against what was sent.
"""
