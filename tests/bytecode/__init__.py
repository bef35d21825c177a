"""Bytecode for tests: an assembler and programs of Felix's shape."""
