"""Findings about nodes that are read through agents."""

from __future__ import annotations

from calico_debug import __version__
from calico_debug.explain.reach import node_not_read, observed_for_less, version_finding


def test_a_node_that_was_not_read() -> None:
    found = node_not_read("n1", "nobody answers: look there")
    assert (found.code, found.severity, found.message) == ("node-not-read", "warning", "n1: nobody answers: look there")


def test_less_time() -> None:
    found = observed_for_less("n1", 60, 600)
    assert (found.code, "first 60 s of 600 s" in found.message) == ("observation-incomplete", True)


def test_versions() -> None:
    assert version_finding("n1", __version__) is None
    found = version_finding("n1", "9" * 100)
    assert found is not None
    assert f"version {'9' * 40}, this command of {__version__}" in found.message
    unknown = version_finding("n1", "")
    assert unknown is not None
    assert "version unknown" in unknown.message
