"""Taking addresses and names out of evidence, so that what is left still explains the same."""
