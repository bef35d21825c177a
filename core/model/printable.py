"""Text from evidence made harmless: what must not steer a terminal, or hide in a file, is shown as an escape."""

from __future__ import annotations

_NAMED_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str) -> str:
    r"""The text with everything that is not printable as a visible escape (``\x1b``, ``\u202e``, ``\U000e0001``).

    That is what Unicode calls control, format (bidirectional overrides among it), surrogate, private, unassigned, and
    every separator but the plain space; combining marks too, as they would draw over what stands before them.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_plain(character) else _escape(character) for character in text)


def _is_plain(character: str) -> bool:
    if character.isascii():
        return character.isprintable()
    from unicodedata import category

    return character.isprintable() and not category(character).startswith("M")


def _escape(character: str) -> str:
    number = ord(character)
    if character in _NAMED_ESCAPES:
        return _NAMED_ESCAPES[character]
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
