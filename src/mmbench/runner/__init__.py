"""Running trials: each in a process of its own."""
