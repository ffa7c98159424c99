"""Experiments: a YAML file that names a grid, and the trials that it stands for."""
