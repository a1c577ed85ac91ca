"""Predictions: the Python interface and what it stands on."""
