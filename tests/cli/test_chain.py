"""The command chain, on the project's recording."""

from __future__ import annotations

import io
import json
from pathlib import Path

from calico_debug.cli.environment import Environment
from calico_debug.cli.main import main

RECORDING = Path(__file__).resolve().parents[1] / "data" / "v3.32.1-nft.tar.xz"


def _run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(["chain", *arguments], Environment(io.BytesIO(), out, err))
    return code, out.getvalue(), err.getvalue()


def test_text_says_policy_and_places() -> None:
    code, out, _ = _run("cali-po-np/client/platform.client-egress", "--bundle", str(RECORDING))
    assert (code, out.splitlines()) == (
        0,
        [
            "NetworkPolicy client/platform.client-egress, tier platform, egress",
            "  node1  table ip calico  chain filter-cali-po-np/client/platform.client-egress  1 rule",
        ],
    )


def test_a_chain_that_no_node_has_is_said_to_be_nowhere() -> None:
    code, out, _ = _run("cali-pi-_00000000000000000000", "--bundle", str(RECORDING))
    assert code == 0
    assert "on no node of the evidence" in out


def test_json_is_one_document() -> None:
    code, out, _ = _run("security.quarantine", "--bundle", str(RECORDING), "-o", "json")
    document = json.loads(out)
    assert (code, document["kind"], document["policy"]["name"]) == (0, "ChainLookup", "security.quarantine")
    assert len(document["programmed"]) == 4


def test_unknown_names_and_contradicting_options_are_usage_errors() -> None:
    assert _run("nobody", "--bundle", str(RECORDING))[0] == 2
    assert _run("cali-INPUT", "--bundle", str(RECORDING), "--node", "x")[0] == 2


def test_names_with_escapes_are_neutralised() -> None:
    _, out, err = _run("cali-pi-\x1b[31mred", "--bundle", str(RECORDING))
    assert "\x1b" not in out + err
