"""``-o yaml``: the document of contract 3 as YAML. Pure ASCII, without anchors."""

from __future__ import annotations

import yaml

from calico_debug.cli.render.terminal import Style
from calico_debug.explain.document import to_document
from calico_debug.model.explanation import FlowExplanation


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice: anchors are a burden for people and for simple parsers."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature of PyYAML
        return True


def render(explanation: FlowExplanation, style: Style) -> str:  # noqa: ARG001 - one signature for every renderer
    """One document."""
    return dump(to_document(explanation))


def dump(document: object) -> str:
    """Anything as YAML."""
    dumped: str = yaml.dump(
        document,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=False,
        default_flow_style=False,
        width=1 << 20,
    )
    return dumped
