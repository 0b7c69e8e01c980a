"""Figures, one function each, that take and return matplotlib axes."""
