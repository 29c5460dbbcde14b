"""The core: what the agent decides. PURE.

``handle(event) -> [effects]`` and nothing else: no clock, disk, socket, thread, random source or logger. Time comes in
with the event; an event is a batch, not a point. It may not import the store, the loop, or anything of the world.
"""
