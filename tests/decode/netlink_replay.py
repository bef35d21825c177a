"""A recorded exchange with nf_tables that answers again, and what nft listed then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RECORDING = json.loads((Path(__file__).parents[1] / "data" / "nft-netlink.json").read_text())
LISTING = json.dumps(RECORDING["listing"])
PLACES = [
    tuple(content[key] for key in ("family", "table", "name"))
    for item in RECORDING["listing"]["nftables"]
    for kind, content in item.items()
    if kind in ("chain", "set", "map")
]


class Replay:
    """Implements NetlinkDump from the recording; ``change`` may alter each answer. ``asked`` counts requests."""

    def __init__(self, change: Callable[[bytes], bytes] = bytes) -> None:
        self.asked: list[tuple[int, bytes]] = []
        self._change = change
        self._answers = {
            (e["type"], e["flags"], e["family"], e["attributes"]): [bytes.fromhex(a) for a in e["answers"]]
            for e in RECORDING["exchanges"]
        }

    def __call__(self, message_type: int, flags: int, family: int, attributes: bytes) -> Iterable[bytes]:
        self.asked.append((message_type, attributes))
        answers = self._answers.get((message_type, flags, family, attributes.hex()), [])
        return [self._change(answer) for answer in answers]


def refusal(action: Callable[[], object]) -> str:
    """The message of the EvidenceError that an action raises, "" when it raises none."""
    try:
        action()
    except EvidenceError as error:
        return str(error)
    return ""
