"""The walk: one packet through everything that the kernel of a node would run."""
