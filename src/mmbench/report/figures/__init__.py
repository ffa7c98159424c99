"""Figures: of accuracies, differences and curves. ``gallery.figures`` draws those of a report."""
