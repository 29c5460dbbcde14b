"""Protocol: the number of what the agent and its uploader say to each other.

Pip may put a release over the one that a running agent was started from. The agent has all of its own code in memory;
the uploader is started when there is something to send, from what is installed then.
"""

from __future__ import annotations

# Another one when a job or an answer of :mod:`dreamlake_agent.remote.main` says something else than before. Whatever
# the number: a job has ``job``, and is answered by ``job``, ``ended``, ``text`` and ``chance``.
PROTOCOL = 1

OTHER = (
    "another version of dreamlake is installed than the agent that runs: nothing is sent until "
    "`dreamlake agent restart`, and nothing is lost"
)
