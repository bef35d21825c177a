"""What a node holds, row by row, with the names of pods, services and policies, for every dataplane."""
