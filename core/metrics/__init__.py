"""What a node's counters say in the terms of policy: pure functions from state to samples."""
