"""The ground floor: errors, settings, seeds, files, checkpoints, logs, executors.

It imports nothing else of the project.
"""
