"""``dreamlake sync``, in the foreground: what goes where, and the run of it.

The same sender as the agent's uploader (``remote``); here one process does all of it, owns what nobody owns, and ends.
"""
