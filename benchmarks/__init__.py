"""Benchmarks of speed and quality: each is a command that prints a table and writes a JSON record."""
