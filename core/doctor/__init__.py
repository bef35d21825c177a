"""What is wrong with nodes and their cluster: one small function for each thing looked at, one table of findings."""
