"""Breaks things on purpose and counts what was lost. The suite runs small versions of these."""
