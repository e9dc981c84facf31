"""Broken inputs: a table of kinds of files, a table of faults, and what may come of each pair."""
