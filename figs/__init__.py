"""Pictures, each with the script that draws it."""
