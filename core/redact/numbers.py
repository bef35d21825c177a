"""Numbers that are made of names: ids of rules and of IP sets, replaced by others.

Both are 64 bits of a digest, of a policy's or a selector's text (felix/rules/nflogprefix.go, felix/idalloc), so keeping
them would let anybody who guesses a name see that it is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

WELL_KNOWN_SETS = frozenset({0, 0x1_0000_0003})
"""No set, and the one of all workloads of an Istio mesh (felix/idalloc, ReserveWellKnownID, v3.32)."""

NO_RULE = 0
"""What the end of all rules counts under, and a rule that logs."""


class NumberMap:
    """One mapping of all numbers, fixed by its key; the identity where names stay."""

    def __init__(self, key: bytes, *, names: bool) -> None:
        """``key`` is 16 to 64 secret bytes, ``names`` says whether names are replaced."""
        self._key = key
        self._names = names
        self._rules: dict[int, int] = {}
        self._sets: dict[int, int] = {}

    def add_rules(self, renamed: Mapping[int, int]) -> None:
        """Ids of rules that can be computed from their new names."""
        self._rules.update(renamed)

    def add_sets(self, renamed: Mapping[int, int]) -> None:
        """Ids of IP sets that can be computed from their new names."""
        self._sets.update(renamed)

    def rule(self, number: int) -> int:
        """What stands for the id of a rule, of a tier's end or of a profile."""
        if not self._names or number == NO_RULE:
            return number
        return self._rules.get(number) or self._hashed(number, b"rule")

    def ip_set(self, number: int) -> int:
        """What stands for the id of an IP set."""
        if not self._names or number in WELL_KNOWN_SETS:
            return number
        return self._sets.get(number) or self._hashed(number, b"set")

    def tag(self, text: str) -> str:
        """What stands for the digest of a program that cannot be made anew."""
        return hashlib.blake2b(text.encode(), key=self._key, person=b"tag", digest_size=8).hexdigest()

    def _hashed(self, number: int, purpose: bytes) -> int:
        data = number.to_bytes(8)
        return int.from_bytes(hashlib.blake2b(data, key=self._key, person=purpose, digest_size=8).digest()) or 1
