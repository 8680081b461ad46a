"""The commands of `llamora-server`, each with `add_options` and `run`."""
