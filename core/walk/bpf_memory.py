"""Memory that bytecode reads and writes: bounded regions of bytes, each byte known or open."""

from __future__ import annotations

from typing import Final

from calico_debug.model.bytecode import BytecodeError
from calico_debug.model.values import Partial
from calico_debug.walk.bpf_values import Number, Unsettled

_KNOWN: Final = {size: b"\xff" * size for size in (1, 2, 4, 8)}


class Region:
    """Bytes at addresses of their own: the context, a stack frame, a map's value, a packet.

    ``known`` holds ff for each bit that is known. ``aligned`` regions refuse unaligned access, as the verifier does for
    stack and context. ``pointers`` holds pointers stored here, with their size, by offset.
    """

    __slots__ = ("aligned", "data", "known", "name", "pointers", "reasons", "version", "writable")

    def __init__(
        self, name: str, data: bytes | bytearray, *, known: bool = True, writable: bool = True, aligned: bool = False
    ) -> None:
        """``known`` False leaves every byte open until it is written."""
        self.name = name
        self.data = bytearray(data)
        self.known = bytearray((b"\xff" if known else b"\0") * len(data))
        self.writable = writable
        self.aligned = aligned
        self.pointers: dict[int, tuple[int, Pointer]] = {}
        self.reasons: dict[int, str] = {}
        self.version = 0

    def put(self, offset: int, size: int, value: int | Partial, *, order: str = "little") -> None:
        """Set a field before a run; open bits keep their reason. ``order`` is "little" or "big"."""
        whole = (1 << 8 * size) - 1
        number, known = (value, whole) if isinstance(value, int) else (value.value & value.known, value.known & whole)
        big = order == "big"
        self.data[offset : offset + size] = (number & whole).to_bytes(size, "big" if big else "little")
        self.known[offset : offset + size] = known.to_bytes(size, "big" if big else "little")
        if isinstance(value, Partial):
            for position in range(offset, offset + size):
                self.reasons[position] = value.why

    def load(self, offset: int, size: int) -> Number | Pointer:
        """What ``size`` bytes at ``offset`` hold. Raises `BytecodeError` outside the region."""
        end = offset + size
        if offset < 0 or end > len(self.data) or (self.aligned and offset % size):
            raise self._refused("read", offset, size)
        if self.pointers and offset in self.pointers:
            stored, pointer = self.pointers[offset]
            if stored == size:
                return pointer
        if self.known[offset:end] == _KNOWN[size]:
            return int.from_bytes(self.data[offset:end], "little")
        mask = int.from_bytes(self.known[offset:end], "little") ^ ((1 << 8 * size) - 1)
        value = int.from_bytes(self.data[offset:end], "little")
        why = next((self.reasons[at] for at in range(offset, end) if at in self.reasons), f"{self.name}: never written")
        return Unsettled(value, mask, why, (self.name, self.version, offset, size))

    def store(self, offset: int, size: int, value: Number | Pointer) -> None:
        """Write ``size`` bytes at ``offset``. Raises `BytecodeError` outside the region."""
        end = offset + size
        if offset < 0 or end > len(self.data) or not self.writable or (self.aligned and offset % size):
            raise self._refused("write", offset, size)
        if self.pointers:
            for at in [at for at, (stored, _) in self.pointers.items() if at < end and offset < at + stored]:
                del self.pointers[at]
        if self.known[offset:end] != _KNOWN[size]:
            self.version += 1
        if isinstance(value, int):
            self.data[offset:end] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
            self.known[offset:end] = _KNOWN[size]
            return
        if isinstance(value, Pointer):
            if size != 8:
                raise BytecodeError(f"a pointer is cut to {size} bytes when it is stored at {self.name}+{offset}")
            self.pointers[offset] = (size, value)
            self.known[offset:end] = bytes(size)
            return
        whole = (1 << 8 * size) - 1
        self.version += 1
        self.data[offset:end] = (value.value & whole).to_bytes(size, "little")
        self.known[offset:end] = (~value.mask & whole).to_bytes(size, "little")
        for position in range(offset, end):
            self.reasons[position] = value.why

    def _refused(self, verb: str, offset: int, size: int) -> BytecodeError:
        if offset >= 0 and offset + size <= len(self.data):
            reason = "which is not aligned" if self.writable or verb == "read" else "which is read-only"
        else:
            reason = f"which has {len(self.data)} bytes"
        return BytecodeError(f"{verb} of {size} bytes at {self.name}{offset:+d}, {reason}")


class Pointer:
    """An address: ``offset`` bytes into a region."""

    __slots__ = ("offset", "region")

    def __init__(self, region: Region, offset: int) -> None:
        """Offsets outside the region are allowed until they are used."""
        self.region = region
        self.offset = offset

    def __repr__(self) -> str:
        """Region and offset."""
        return f"{self.region.name}{self.offset:+d}"
