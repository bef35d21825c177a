"""A recorded node whose pods' interfaces are called otherwise: every answer is the same, but for those names."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from pathlib import Path

import pytest

from calico_debug.cli.environment import Environment
from calico_debug.cli.main import main
from tests.recordings import DATA

AZURE = "azv"
INTERFACES = re.compile(r"\bcali(?=[0-9a-f]{11}\b|[0-9a-f]{0,10}[+*])|(?<=-)cali(?=[0-9a-f]{11}\b)")
ASKED = (
    "trace --from client/client-5f8b --to svc/management-ui/management-ui",
    "trace --from client/client-5f8b --to svc/stars/backend",
    "trace --from yaobank/database-0 --to svc/yaobank/ghost",
    "trace --from external --to node/node1:30002 --via node1",
    "policy client/client-5f8b",
    "policies --pod client/client-5f8b",
    "endpoints --policy client/platform.client-egress",
    "routes --node node1 --to client/client-5f8b",
    "routes --node node2",
    "ifstate --node node1",
    "counters client/client-5f8b",
    "doctor",
)


@pytest.fixture(scope="module", params=["nft", "iptables"])
def bundles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recording, and the same with another prefix. Felix's environment does not tell it: the rules have to do."""
    folder = tmp_path_factory.mktemp("prefix")
    for name in ("as-it-was", "renamed"):
        with tarfile.open(DATA / f"v3.32.1-{request.param}.tar.xz") as archive:
            archive.extractall(folder / name)  # noqa: S202 - our own recording
    as_it_was, renamed = ((folder / name) / f"v3.32.1-{request.param}" for name in ("as-it-was", "renamed"))
    changed = 0
    for path in renamed.glob("nodes/*/*"):
        text, number = INTERFACES.subn(AZURE, path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        changed += number
        assert "INTERFACEPREFIX" not in text
    assert changed > 100
    return as_it_was, renamed


def answer(words: str, bundle: Path) -> tuple[int, str]:
    """Exit code and what is printed."""
    out, err = io.StringIO(), io.StringIO()
    code = main([*shlex.split(words), "--bundle", str(bundle), "-o", "json"], Environment(io.BytesIO(), out, err))
    assert out.getvalue(), err.getvalue()
    return code, out.getvalue()


@pytest.mark.parametrize("words", ASKED)
def test_only_names_differ(bundles: tuple[Path, Path], words: str) -> None:
    (code, before), after = (answer(words, bundle) for bundle in bundles)
    assert after == (code, INTERFACES.sub(AZURE, before).replace(str(bundles[0]), str(bundles[1])))
