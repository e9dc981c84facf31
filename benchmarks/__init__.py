"""Speed and quality harnesses: each is a command that prints a table and leaves a JSON record."""
