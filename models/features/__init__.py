"""Facts about an architecture that need no label: paths, flow, signature, properties."""
