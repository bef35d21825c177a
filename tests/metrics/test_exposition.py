"""The page is what Prometheus' own parser reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from calico_debug.metrics import families
from calico_debug.metrics.exposition import number, page
from calico_debug.metrics.families import FAMILIES, Sample


def read(content: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(content.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


names = st.text(st.characters(codec="utf-8"), max_size=12)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=4, unique=True), st.integers(0, 2**53))
def test_labels_and_values_come_back(labels: list[tuple[str, str]], value: int) -> None:
    samples = [Sample(families.DROPS, ("nftables", first, second, "any"), value) for first, second in labels]
    expected = {sample.labels: float(value) for sample in samples}
    assert read(page(samples)) == {families.DROPS.name: expected}


def test_families_are_together_and_have_help_and_type() -> None:
    samples = [
        Sample(families.INFO, ("1",), 1),
        Sample(families.SOURCE_UP, ("x",), 0),
        Sample(families.INFO, ("2",), 1),
    ]
    lines = page(samples).decode().splitlines()
    up, info = families.SOURCE_UP, families.INFO
    assert lines == [
        f"# HELP {up.name} {up.help}",
        f"# TYPE {up.name} gauge",
        f'{up.name}{{source="x"}} 0',
        f"# HELP {info.name} {info.help}",
        f"# TYPE {info.name} gauge",
        f'{info.name}{{version="1"}} 1',
        f'{info.name}{{version="2"}} 1',
    ]


def test_numbers() -> None:
    assert [number(value) for value in (0, 3.0, 0.25, 2**60)] == ["0", "3", "0.25", str(2**60)]


def test_names_are_ours_and_say_unit_and_type() -> None:
    for family in FAMILIES:
        assert family.name.startswith("calico_debug_")
        assert family.name.endswith("_total") == (family.type == families.COUNTER)
        assert family.help.endswith(".")
        assert set(family.labels) <= families.LABELS.keys()
    assert {label for family in FAMILIES for label in family.labels} == families.LABELS.keys()
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
