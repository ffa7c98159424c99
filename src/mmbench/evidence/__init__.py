"""Statistics of stored predictions: arrays in, arrays out. No tables, no store."""
