"""Talk to a model: its client, its prompts, its queue, and the embedded server."""
