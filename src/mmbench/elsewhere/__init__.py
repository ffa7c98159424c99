"""Predictions that other code made: read, checked, kept beside those of trials."""
