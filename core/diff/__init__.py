"""What changed between two states of a cluster, and which of its objects did it."""
