"""Fitting: batches, the loop, convergence, draws."""
