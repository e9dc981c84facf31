"""Hyper-parameter sweeps with NNI."""
