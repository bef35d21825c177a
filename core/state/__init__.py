"""State: evidence decoded on demand. A node's rules, routes and connections, and the cluster's objects."""
