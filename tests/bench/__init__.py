"""``make bench``: what the program costs, side by side with what it replaces, in one run."""
