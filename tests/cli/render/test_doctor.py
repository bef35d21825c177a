"""The doctor's report as text."""

from __future__ import annotations

from calico_debug.cli.render.doctor import document, text
from calico_debug.doctor.catalogue import CATALOGUE
from calico_debug.doctor.examine import Diagnosis, Report, Unseen


def test_many_of_one_kind_are_cut_in_text_only() -> None:
    found = tuple(
        Diagnosis("notrack", "warning", "n1", f"number {number}", CATALOGUE["notrack"]) for number in range(12)
    )
    report = Report("memory", ("n1",), found, ())
    lines = text(report).splitlines()
    assert sum("seen" in line for line in lines) + 2 == 12
    assert "and 2 more, which -o json lists" in lines[11]
    assert len(document(report)["findings"]) == 12


def test_a_node_in_order() -> None:
    assert text(Report("memory", ("n1",), (), ())) == "1 node: 0 errors, 0 warnings, 0 notes\n"


def test_what_was_not_checked_and_untrusted_text() -> None:
    report = Report("memory", ("n1", "n2"), (), (Unseen("maps", "n2", "gone \x1b[2J"), Unseen("services", "", "none")))
    assert text(report) == (
        "NOT CHECKED\n         maps of n2: gone \\x1b[2J\n         services: none\n\n"
        "2 nodes: 0 errors, 0 warnings, 0 notes; 2 things not checked\n"
    )
