"""Checks of a fit."""
