"""The program ``kubectl_complete-calico_debug``: kubectl has it complete words behind ``kubectl calico-debug``."""

from __future__ import annotations

import sys

from calico_debug.cli.commands import commands
from calico_debug.cli.completion import answer_kubectl


def complete() -> int:
    """Answer and end with 0: a shell that waits for a word is no place for errors."""
    sys.stdout.write(answer_kubectl(commands, sys.argv[1:]))
    return 0
