"""Explain why a Calico cluster allowed or denied a flow, from what the kernel on each node will execute."""

__version__ = "0.1.0"
