"""Pictures; each module names the command that draws its own."""
