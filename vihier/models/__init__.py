"""Pyro programs of screens, one file each."""
