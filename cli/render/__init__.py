"""Renderers: pure functions from an explanation to text."""
