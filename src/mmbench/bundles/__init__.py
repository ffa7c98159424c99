"""Bundles: an experiment's results in one file, for another machine."""
