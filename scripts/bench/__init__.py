"""Benchmarks. They are run by hand and print JSON; no test asserts on a clock."""
