"""What the API intends against what nodes are programmed with."""
