"""Members of sets: spans less spans, what the kernel's sets hold, and what a difference says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.drift.intended_sets import IntendedSet
from calico_debug.drift.sets import SHOWN, SetMembers, compare, kernel_set, without
from calico_debug.model.nft import Element, Interval, SetContent

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: (min(pair), max(pair))), max_size=6)


@given(SPANS, SPANS)
def test_spans_less_spans(spans: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    def numbers(found: list[tuple[int, int]]) -> set[int]:
        return {number for first, last in found for number in range(first, last + 1)}

    assert numbers(list(without(spans, others))) == numbers(spans) - numbers(others)


class Tables:
    """A ruleset with one set."""

    def __init__(self, content: SetContent) -> None:
        self._content = content

    def tables(self) -> list[tuple[str, str]]:
        return [("ip6", "calico"), ("ip", "kube-proxy"), ("ip", "calico")]

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        return self._content if (family, table, name) == ("ip", "calico", "cali40s-x") else None


def test_what_the_kernel_holds() -> None:
    keys = (7, (1, 6, 80), "odd")
    content = SetContent((32,), {key: Element(key) for key in keys}, (Element(Interval(8, 15)),))
    held = kernel_set(Tables(content), 4, ("cali40s:x", "cali40s-x"))  # type: ignore[arg-type]
    assert held is not None
    assert (held.spans, held.ports, held.odd) == ({(7, 7), (8, 15)}, {(1, 6, 80)}, 1)
    assert kernel_set(Tables(content), 6, ("cali40s-x", "")) is None  # type: ignore[arg-type]


def intended() -> IntendedSet:
    return IntendedSet("s:x", "everything with a", {"GlobalNetworkPolicy p": None})


def test_ranges_are_compared_by_what_they_cover() -> None:
    one, held = intended(), SetMembers()
    one.spans[4] = {(0x0A000000, 0x0A0000FF): "network set n", (0x0A000005, 0x0A000005): "ns/pod"}
    held.spans = {(0x0A000000, 0x0A00007F), (0x0A000080, 0x0A0000FF)}
    assert not list(compare("node", 4, one, held))
    held.spans.remove((0x0A000080, 0x0A0000FF))
    held.spans.add((0x0B000000, 0x0B000000))
    missing, left = compare("node", 4, one, held)
    assert missing.message == "it lacks 10.0.0.128-10.0.0.255; used by GlobalNetworkPolicy p"
    assert left.message == "it still has 11.0.0.0; used by GlobalNetworkPolicy p"


def test_ports_have_names_and_long_lists_end() -> None:
    one, held = intended(), SetMembers()
    one.has_ports = True
    one.ports[6] = {(number, 17, 53): f"ns/pod{number}" for number in range(SHOWN + 2)}
    (missing,) = compare("node", 6, one, held)
    assert missing.message.startswith("it lacks :: udp port 53 (ns/pod0), ::1 udp port 53 (ns/pod1)")
    assert missing.message.endswith("and 2 more; used by GlobalNetworkPolicy p")


def test_a_set_that_is_not_there() -> None:
    (missing,) = compare("node", 4, intended(), None)
    assert (missing.code, missing.object) == ("set-missing", "IP set s:x (everything with a)")
