"""Watches packets at the kernel's tracepoints, with a small BPF program of our own that goes when its owner does."""
