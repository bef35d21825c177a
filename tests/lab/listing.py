"""What the kernel lists, in a form in which two rule sets of the same meaning are equal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Sequence

_NOISE = (
    (re.compile(r" # handle \d+$"), ""),
    (re.compile(r"packets \d+ bytes \d+ "), ""),
    (re.compile(r"cali:[^;]{16};"), "cali:;"),
)


def kernel_listing(text: str) -> str:
    """Load nft text into an empty namespace and list what the kernel made of it."""
    name = namespaces.create(["listing"])["listing"]
    try:
        namespaces.nft(name, text)
        return namespaces.run(name, ["nft", "list", "ruleset"])
    finally:
        namespaces.delete([name])


def listed(text: str, tables: Sequence[str]) -> dict[str, list[str]]:
    """{table, kind and name of a chain, map or set: its lines} of ``nft list ruleset``.

    Handles, counts and Felix's rule hashes are left out, elements are sorted, and the name of one of Calico's sets is
    replaced by its content, since its id is a hash of the selector's text.
    """
    members: dict[str, str] = {}
    blocks: dict[str, list[str]] = {}
    table = ""
    for block in re.split(r"\n(?=table )|\n\n", text):
        lines = [_plain(line) for line in block.strip().splitlines()]
        if lines and lines[0].startswith("table "):
            table = lines.pop(0).removeprefix("table ").removesuffix(" {")
        if lines and lines[0].startswith("comment "):
            lines.pop(0)
        if not lines or table not in tables:
            continue
        head, body = lines[0].removesuffix(" {"), [line for line in lines[1:] if line != "}"]
        if head.startswith("chain "):
            blocks[f"{table} {head}"] = body
            continue
        before, elements = _elements(body)
        if head.startswith("set cali"):
            members[head.removeprefix("set ")] = f"{{{', '.join(elements)}}}"
        else:
            blocks[f"{table} {head}"] = before + elements
    return {name: [_with_members(line, members) for line in body] for name, body in blocks.items()}


def _plain(line: str) -> str:
    for pattern, replacement in _NOISE:
        line = pattern.sub(replacement, line.strip())
    return line


def _elements(body: list[str]) -> tuple[list[str], list[str]]:
    joined = " ".join(body)
    found = re.search(r"elements = \{(.*)\}", joined)
    if not found:
        return body, []
    before = list(body[: next(n for n, line in enumerate(body) if line.startswith("elements"))])
    return before, sorted(part.strip() for part in found[1].split(","))


def _with_members(line: str, members: dict[str, str]) -> str:
    return re.sub(r"@(cali[46]0[^ ]+)", lambda match: members[match[1]], line)
