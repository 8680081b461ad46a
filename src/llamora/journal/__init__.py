"""What the project exists for: accounts, days, replies. Knows the store, search and the model; not the web."""
