"""The real servers that tests run against: a MongoDB and an S3 store, on loopback, with nothing of them left behind.

They are installed on demand (``install``), never shipped, and no part of the product knows them. A server's whole life
is in ``server``: ports of its own, a folder of its own, killed and started again at will.
"""
