"""Search: a per-user index in RAM over the sealed store, by word and by meaning."""
