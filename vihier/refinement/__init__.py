"""NUTS over the scales of chosen genes, started from a variational fit."""
