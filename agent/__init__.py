"""The privileged part: evidence read from the node that this process runs on."""
