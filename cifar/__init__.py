"""CIFAR-10: images, augmentation, the network of a DARTS cell, its training, and a query that trains."""
