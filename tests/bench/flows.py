"""The recorded probe flows as input of ``trace --flows``."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def recorded_flows(recording: Path, target: Path, repeats: int) -> int:
    """Write the flows of a recording ``repeats`` times; returns their number."""
    with tarfile.open(recording) as archive:
        member = next(name for name in archive.getnames() if name.endswith("/probes.json"))
        opened = archive.extractfile(member)
        assert opened is not None
        probes = json.load(opened)
    lines = [json.dumps(_flow(probe)) for probe in probes]
    target.write_text("".join(f"{line}\n" for line in lines * repeats))
    return len(lines) * repeats


def _flow(probe: dict[str, Any]) -> dict[str, str]:
    to = probe["dst_ip"] if probe["proto"] == "icmp" else f"{probe['dst_ip']}:{probe['dport']}"
    flow = {"from": probe["src_ip"], "to": to, "protocol": probe["proto"]}
    return flow | {"via": "node1"} if probe["src"] == "host/external-client" else flow
