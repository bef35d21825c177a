"""A node's change from one dataplane to another: what to look at before, what to write down, what differs after."""
