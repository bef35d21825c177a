"""The command line: unprivileged, on top of the core."""
