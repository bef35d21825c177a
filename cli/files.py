"""Files that commands make."""

from __future__ import annotations

import os
from typing import BinaryIO

from calico_debug.errors import CalicoDebugError, UsageError


def new_file(path: str, option: str) -> BinaryIO:
    """A file made anew and for its owner alone: what is written may hold secrets. ``option`` is the one that named it.

    Raises `CalicoDebugError`.
    """
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
    except FileExistsError:
        raise UsageError(f"{path} is there already: name another file with {option}, or remove it") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CalicoDebugError(f"{path} cannot be made: {reason}; name another file with {option}") from None
