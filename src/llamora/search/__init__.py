"""Search sealed entries by word and by meaning, from an index per user in memory."""
