"""The command line of the agent, a file for each noun; `pyproject.toml` hangs them into ``dreamlake``.

The only files here that print, ask, or decide about exit codes. The agent's own process imports none of them.
"""
