"""Trained models that are kept: written beside a trial's record, built again without data, and asked about new samples."""
