"""Data sets without code: a folder with a table of samples, and ``dataset.yaml``, which says how to read it."""
