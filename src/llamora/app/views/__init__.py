"""View models for templates, one module per subject."""
