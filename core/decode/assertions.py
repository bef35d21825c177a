"""Files of assertions: YAML (so JSON, too) with a list of flows and what is expected of each."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from calico_debug.errors import UsageError
from calico_debug.model.assertion import EXPECTABLE, Expectation

LARGEST = 16 << 20
"""Bytes of the largest file that is taken for one of assertions."""

KEYS = ("from", "to", "protocol", "via", "expect", "tier", "policy")
"""What an entry of ``flows`` may have; docs/cli.md has the same table."""

SHAPE = "write flows: [{from: ns/pod, to: svc/ns/name, expect: allowed}]"


def decode_assertions(data: bytes, what: str) -> tuple[Expectation, ...]:
    """The expectations of a file, in order. ``what`` names it in messages.

    Scalars are taken as they are written, since YAML would make a number of ``to: 22:22`` and of ``expect: no`` a
    truth value. Raises `UsageError` with the line.
    """
    if len(data) > LARGEST:
        raise UsageError(f"{what} has more than {LARGEST >> 20} MiB: this is no file of assertions, {SHAPE}")
    try:
        root = yaml.compose(data, yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{what} is not YAML ({' '.join(str(error).split())}): {SHAPE}") from error
    if root is None:
        raise UsageError(f"{what} is empty: {SHAPE}")
    flows = _mapping(root, ("flows",), what).get("flows")
    if not isinstance(flows, yaml.SequenceNode) or not flows.value:
        raise UsageError(f'{what}: "flows" is no list with something in it: {SHAPE}')
    return tuple(_expectation(node, what) for node in flows.value)


def _expectation(node: yaml.Node, what: str) -> Expectation:
    fields = _mapping(node, KEYS, what)
    where = _where(node, what)
    for key in ("from", "to", "expect"):
        if key not in fields:
            raise UsageError(f'{where}: "{key}" is missing: {SHAPE}')
    expected = fields["expect"]
    choices = expected.value if isinstance(expected, yaml.SequenceNode) else [expected]
    verdicts = tuple(_text(choice, "expect", what) for choice in choices)
    for verdict in verdicts:
        if verdict not in EXPECTABLE:
            raise UsageError(f"{where}: nothing can be expected to be {verdict!r}: expect {' or '.join(EXPECTABLE)}")
    if not verdicts:
        raise UsageError(f'{where}: "expect" is an empty list: expect {" or ".join(EXPECTABLE)}')
    texts = {key: _text(value, key, what) for key, value in fields.items() if key != "expect"}
    return Expectation(
        node.start_mark.line + 1,
        texts["from"],
        texts["to"],
        verdicts,
        texts.get("protocol"),
        texts.get("via"),
        texts.get("tier", ""),
        texts.get("policy", ""),
    )


def _mapping(node: yaml.Node, known: tuple[str, ...], what: str) -> Mapping[str, yaml.Node]:
    where = _where(node, what)
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{where}: not a mapping: {SHAPE}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = _text(key, "a key", what)
        if name not in known:
            raise UsageError(f"{_where(key, what)}: unknown key {name!r}: known are {', '.join(known)}")
        if name in found:
            raise UsageError(f"{_where(key, what)}: {name!r} stands here twice: leave one out")
        found[name] = value
    return found


def _text(node: yaml.Node, key: str, what: str) -> str:
    if isinstance(node, yaml.ScalarNode) and node.value:
        return str(node.value)
    raise UsageError(f"{_where(node, what)}: {key} is not a text with something in it: {SHAPE}")


def _where(node: yaml.Node, what: str) -> str:
    return f"{what}, line {node.start_mark.line + 1}"
