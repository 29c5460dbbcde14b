"""The store: one session directory, written.

It does what it is told and decides nothing about clients, retries or time. It may not send, start a thread, read a
clock or know the core. Any :class:`OSError` out of ``commit`` ends a
:class:`~dreamlake_agent.store.directory.Directory`: what is in memory no longer follows from the disk, and only
recovery may go on.
"""
