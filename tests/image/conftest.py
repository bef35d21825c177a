"""One image a test session, built here."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.image.builder import Storage, unavailable


@dataclass(frozen=True, slots=True)
class Image:
    """What was built: what it says of itself, and its unpacked root directory."""

    description: Any
    root: Path


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    if reason := unavailable():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="calico-debug-image-") as directory:
        storage = Storage(Path(directory))
        started = time.monotonic()
        try:
            storage.make_base()
        except RuntimeError as error:
            # Nothing of the project is in it: this machine does not reach Debian, or may not chroot.
            pytest.skip(f"a base image cannot be made here: {error}")
        based = time.monotonic()
        storage.build()
        print(f"base made in {based - started:.0f} s, image in {time.monotonic() - based:.0f} s")  # noqa: T201
        yield Image(storage.description(), storage.unpacked())
