"""Encoders, features, pretext tasks and predictors of architectures, independent of the search space."""
