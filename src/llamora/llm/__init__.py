"""The model: its client, the embedded server, and the prompts."""
