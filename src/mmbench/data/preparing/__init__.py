"""From raw downloads to prepared data sets: decoding, tables, manifests, audits."""
