"""Typed state: what the decoders produce and the walk reads. Nothing here does any I/O."""
