"""Tiny copies of the data sets in their real layouts and codecs, made up: to try the whole way without the downloads."""
