"""From what the walk saw to the answer that a person can use."""
