"""Remote: the second hop's sender. What a session directory has that is durable goes to a server, once, in order.

docs/push.md is the conversation. Nothing here writes into a session directory, and nothing that is remembered here is
believed: each conversation opens with the server's status. Core and store are not known here.
"""
