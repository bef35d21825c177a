"""Whether a change of policy would cut what a node and the cluster live by."""
