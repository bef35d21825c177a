"""A ruleset that has nothing but sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.model.nft import Chain, Element, Rule, SetContent


class Sets:
    """Implements `calico_debug.model.nft.Ruleset`."""

    def __init__(self, content: Mapping[str, SetContent]) -> None:
        self._content = content

    def tables(self) -> Sequence[tuple[str, str]]:
        return ()

    def base_chains(self) -> Sequence[Chain]:
        return ()

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:  # noqa: ARG002
        return None

    def elements(self, family: str, table: str, name: str) -> SetContent | None:  # noqa: ARG002
        return self._content.get(name)

    def find(self, family: str, table: str, name: str, key: object) -> Element | None:
        raise NotImplementedError
