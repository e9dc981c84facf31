"""Label tables: known accuracies of architectures, and the protocols by which they train and are ranked."""
