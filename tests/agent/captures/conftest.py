"""A node whose packets are captured."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.agent.captures.here import Here
from tests.agent.packets.conftest import lab

if TYPE_CHECKING:
    from tests.lab.lab import Lab

__all__ = ["lab"]


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Iterator[Here]:
    found = Here(lab, tmp_path / "captures")
    yield found
    found.captures.close()
