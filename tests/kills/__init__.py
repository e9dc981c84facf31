"""The kill matrix: runs of every script, killed at seeded moments, started again, and compared."""
