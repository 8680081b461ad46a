"""Hold the domain logic: accounts, entries, tags, summaries and replies.

Modules here use persistence, search and the model client, and never the web layer.
"""
