"""Spaces that a JSON file declares, without Python; the files beside this one are shipped."""
