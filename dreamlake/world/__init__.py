"""The seams: one small file per piece of the world that Dreamlake touches.

Everything that can fail from outside (disk, sockets, processes, time) is reached through these files, so that
``tests/sim`` can put a pretend world in their place and the shipped journal, link and store run over it unmodified.
Nothing in here decides anything.
"""
