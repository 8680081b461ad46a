"""Llamora: a private journal that answers, on the writer's own machine."""
