"""The server: sessions of many users and machines, over HTTP. Stateless over three ports (``stores/``): any number of
servers may stand on one MongoDB and one bucket. See docs/push.md and docs/server.md.
"""
