"""NAS-Bench-101 (Ying et al., ICML 2019): its cells, their enumeration, and the space."""
