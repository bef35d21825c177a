"""Writing bundles: what is read of a source of evidence, in which order, and what the manifest says of it."""
