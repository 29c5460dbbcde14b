"""Observing an agent: its log, its status, its warnings, metrics and health.

Nothing here changes a session or is waited for by the loop: what is told may be a second old.
"""
