"""Uploading while everything is killed, over a network that hurts."""
