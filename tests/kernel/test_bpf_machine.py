"""The machine against this kernel: the same bytes loaded, verified and run by both."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from calico_debug.decode.bpf_instructions import from_bytes, from_xlated, tags, to_bytes
from calico_debug.model.bytecode import LOAD_WIDE, MAP, MapReference, Program
from calico_debug.walk.bpf_compile import compiled
from calico_debug.walk.bpf_machine import Compiled, Left, Outcome, execute
from calico_debug.walk.bpf_memory import Pointer, Region
from calico_debug.walk.bpf_policy import PolicyProgram, PolicyRun, Verdict, policy_of_debug
from calico_debug.walk.bpf_roles import Role
from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.bpf_state import FLAG_LOG_PACKET, LAYOUTS, number_in, state_of
from calico_debug.walk.choices import Chooser, Unsure, explore
from tests.bytecode import assembler as asm
from tests.bytecode import generated
from tests.bytecode.assembler import Assembler
from tests.bytecode.felix import JUMP_FD, SETS_FD, STATE_FD, STATIC_FD, Builder, Rules, Style
from tests.bytecode.recorded import RECORDED, RecordedCluster, octets
from tests.kernel.bpf_syscall import ARRAY, HASH, LPM_TRIE, PERCPU_ARRAY, PROG_ARRAY, XDP, Kernel, skb, unusable
from tests.recordings import Recording

pytestmark = pytest.mark.kernel
PACKET = bytes(range(64))
LAYOUT = LAYOUTS[-1]
ALLOW_INDEX, DENY_INDEX = 7, 9
MASK = (1 << 64) - 1


@pytest.fixture(scope="module", autouse=True)
def _one_cpu() -> Iterator[None]:
    if reason := unusable():
        pytest.skip(reason)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as one:
        yield one


class OwnMaps:
    """Maps of this process for the machine: descriptor to (key bytes, value bytes, content)."""

    def __init__(self, maps: dict[int, tuple[int, int, dict[bytes, Region]]]) -> None:
        self.maps = maps

    def sizes(self, reference: MapReference) -> tuple[int, int]:
        return self.maps[reference.number][:2]

    def lookup(self, reference: MapReference, key: bytes, known: bytes) -> Region | None:
        assert known == b"\xff" * len(key)
        return self.maps[reference.number][2].get(key)

    def update(self, reference: MapReference, key: bytes, value: bytes, flags: int, /) -> int:
        content = self.maps[reference.number][2]
        if flags == 1 and key in content:
            return -17
        content[key] = Region("value", value)
        return 0

    def delete(self, reference: MapReference, key: bytes, /) -> int:
        return 0 if self.maps[reference.number][2].pop(key, None) else -2

    def jump(self, reference: MapReference, index: int | None) -> Compiled | Left | None:
        raise AssertionError(reference, index)

    def value(self, reference: MapReference, offset: int, /) -> Pointer:
        return Pointer(self.maps[reference.number][2][bytes(4)], offset)


def run_here(code: Assembler, maps: OwnMaps) -> Outcome:
    context = Region("context", bytes(192), aligned=True)
    return execute(compiled(Program(code.instructions())), context, maps, Chooser())


class TestArithmetic:
    @pytest.mark.parametrize("seed", range(20))
    def test_random_programs(self, kernel: Kernel, seed: int) -> None:
        rng = random.Random(seed)
        state = kernel.map(ARRAY, 4, 64, 1)
        for _ in range(20):
            code = generated.alu_program(rng, 8, state)
            program = kernel.program(b"".join(code.raw()))
            for _ in range(5):
                numbers = [
                    rng.choice((0, 1, MASK, 1 << 63, 1 << 31, rng.getrandbits(64), rng.getrandbits(32)))
                    for _ in range(8)
                ]
                value = struct.pack("<8Q", *numbers)
                kernel.update(state, bytes(4), value)
                returned = kernel.run(program, PACKET)
                region = Region("value", value)
                outcome = run_here(code, OwnMaps({state: (4, 64, {bytes(4): region})}))
                assert isinstance(outcome.result, int)
                assert bytes(region.data) == kernel.lookup(state, bytes(4), 64), code.slots
                assert outcome.result & 0xFFFFFFFF == returned

    def test_open_inputs_contain_what_the_kernel_computes(self, kernel: Kernel) -> None:
        """With bits hidden from the machine, every run of the kernel is one of its alternatives."""
        rng = random.Random(5)
        state = kernel.map(ARRAY, 4, 64, 1)
        for _ in range(60):
            code = generated.alu_program(rng, 8, state)
            program = kernel.program(b"".join(code.raw()))
            numbers = [rng.getrandbits(64) for _ in range(8)]
            hidden = rng.randrange(8)
            bits = rng.choice((0xFFFF, 0xFF00, 1 << 63, MASK))

            known = bytearray(b"\xff" * 64)
            known[8 * hidden : 8 * hidden + 8] = (~bits & MASK).to_bytes(8, "little")
            value = struct.pack("<8Q", *numbers)
            alternatives = [one.result for one in explore(partial(run_open, code, state, value, known), 400)]
            if len(alternatives) == 400:
                continue
            for _ in range(10):
                tried = list(numbers)
                tried[hidden] = tried[hidden] & ~bits | rng.getrandbits(64) & bits
                kernel.update(state, bytes(4), struct.pack("<8Q", *tried))
                kernel.run(program, PACKET)
                after = kernel.lookup(state, bytes(4), 64)
                assert after is not None
                assert any(fits(region, after) for region in alternatives), code.slots


def run_open(code: Assembler, descriptor: int, value: bytes, known: bytes, chooser: Chooser) -> Region:
    region = Region("value", value)
    region.known[:] = known
    context = Region("context", bytes(192), aligned=True)
    execute(
        compiled(Program(code.instructions())), context, OwnMaps({descriptor: (4, 64, {bytes(4): region})}), chooser
    )
    return region


def fits(region: Region, data: bytes) -> bool:
    return all((one ^ other) & known == 0 for one, other, known in zip(region.data, data, region.known, strict=True))


class TestCallsAndMaps:
    def test_map_contents(self, kernel: Kernel) -> None:
        counters = kernel.map(HASH, 4, 8, 16)
        code = Assembler()
        code.load(4, 7, 1, 48)  # the key from cb[0]
        code.store(4, 10, -4, 7)
        code.wide(1, counters, 1)
        code.alu_register(asm.MOV, 2, 10)
        code.alu(asm.ADD, 2, -4)
        code.call(1)
        code.branch(asm.JEQ, 0, 0, "absent")
        code.load(8, 1, 0, 0)
        code.branch(asm.JGT, 1, 2, "remove")
        code.alu(asm.ADD, 1, 1)
        code.store(8, 0, 0, 1)
        code.exit(1)
        code.label("remove")
        code.wide(1, counters, 1)
        code.alu_register(asm.MOV, 2, 10)
        code.alu(asm.ADD, 2, -4)
        code.call(3)
        code.exit(2)
        code.label("absent")
        code.emit(0x7A, 10, 0, -16, 1)
        code.wide(1, counters, 1)
        code.alu_register(asm.MOV, 2, 10)
        code.alu(asm.ADD, 2, -4)
        code.alu_register(asm.MOV, 3, 10)
        code.alu(asm.ADD, 3, -16)
        code.alu(asm.MOV, 4, 1)
        code.call(2)
        code.exit()
        program = kernel.program(b"".join(code.raw()))
        content: dict[bytes, Region] = {}
        maps = OwnMaps({counters: (4, 8, content)})
        rng = random.Random(3)
        steps = compiled(Program(code.instructions()))
        for _ in range(200):
            key = rng.randrange(5)
            context = Region("context", skb((key,)), aligned=True)
            assert execute(steps, context, maps, Chooser()).result == kernel.run(program, PACKET, skb((key,)))
            for number in range(5):
                here = content.get(number.to_bytes(4, "little"))
                assert (bytes(here.data) if here else None) == kernel.lookup(counters, number.to_bytes(4, "little"), 8)

    def test_tags(self, kernel: Kernel) -> None:
        """The kernel's digest of a program, in which maps do not count, and all else does."""
        found = []
        for number, kind in ((1, HASH), (2, HASH), (1, HASH)):
            code = Assembler()
            code.wide(1, kernel.map(kind, 4, 8, 16), 1)
            code.wide(2, number << 40, 0)
            code.exit(1)
            raw = b"".join(code.raw())
            found.append(kernel.tag(kernel.program(raw)))
            assert found[-1] in tags(from_bytes(raw))
        assert found[0] == found[2] != found[1]

    def test_functions_of_the_program(self, kernel: Kernel) -> None:
        code = Assembler()
        code.load(4, 6, 1, 48)
        code.alu_register(asm.MOV, 1, 6)
        code.emit(0x85, 0, 1, 0, 3)  # to the slot after the exit
        code.alu_register(asm.ADD, 0, 6)
        code.emit(0x06, imm=0)
        code.exit()
        code.slots.append((0xBF, 6, 1, 0, 0))
        code.store(8, 10, -8, 6)
        code.alu(asm.MUL, 6, 3)
        code.load(8, 0, 10, -8)
        code.alu_register(asm.ADD, 0, 6)
        code.slots.append((0x95, 0, 0, 0, 0))
        program = kernel.program(b"".join(code.raw()))
        for number in (0, 5, 0x7FFFFFFF):
            context = Region("context", skb((number,)), aligned=True)
            outcome = execute(compiled(Program(code.instructions())), context, OwnMaps({}), Chooser())
            assert isinstance(outcome.result, int)
            assert outcome.result & 0xFFFFFFFF == kernel.run(program, PACKET, skb((number,)))

    @pytest.mark.parametrize("version", [4, 6])
    def test_longest_prefix(self, kernel: Kernel, version: int) -> None:
        rng = random.Random(version)
        size = 20 if version == 4 else 32
        for _ in range(10):
            keys = generated.members(rng, version)
            descriptor = kernel.map(LPM_TRIE, size, 4, 64)
            for key in keys:
                kernel.update(descriptor, key, b"\1\0\0\0")
            trie = PrefixTrie(size, keys)
            for _ in range(200):
                asked = bytearray(rng.choice(keys))
                for _ in range(rng.randrange(3)):
                    asked[rng.randrange(4, size)] ^= 1 << rng.randrange(8)
                asked[:4] = rng.choice(((size - 4) * 8, rng.randrange((size - 4) * 8 + 1))).to_bytes(4, "little")
                assert trie.contains(bytes(asked)) == (kernel.lookup(descriptor, bytes(asked), 4) is not None)


class Loaded:
    """A policy program in this kernel, with maps of ours in place of Calico's."""

    def __init__(self, kernel: Kernel, rules: Rules, style: Style, keys: list[bytes]) -> None:
        self.kernel, self.version = kernel, style.version
        self.layout = LAYOUTS[-1] if style.header else LAYOUTS[0]
        size = 20 if style.version == 4 else 32
        self.state = kernel.map(PERCPU_ARRAY, 4, self.layout.size, 2)
        self.sets = kernel.map(LPM_TRIE, size, 4, 256)
        for key in keys:
            kernel.update(self.sets, key, b"\1\0\0\0")
        self.trie = PrefixTrie(size, keys)
        static, jumps = kernel.map(PROG_ARRAY, 4, 4, 64), kernel.map(PROG_ARRAY, 4, 4, 4096)
        kind = XDP if rules.xdp else 3
        for index in (2, 4) if rules.xdp else (ALLOW_INDEX, DENY_INDEX):
            end = Assembler()
            end.exit(100 + index)
            kernel.update(
                static, index.to_bytes(4, "little"), kernel.program(b"".join(end.raw()), kind).to_bytes(4, "little")
            )
        style.descriptors = {STATE_FD: self.state, SETS_FD: self.sets, STATIC_FD: static, JUMP_FD: jumps}
        style.stride = 100
        parts = Builder(rules, style).parts
        self.code = [b"".join(part.raw()) for part in parts]
        self.programs = [kernel.program(code, kind) for code in self.code]
        for number, program in enumerate(self.programs):
            kernel.update(jumps, (style.entry + 100 * number).to_bytes(4, "little"), program.to_bytes(4, "little"))
        self.here = PolicyProgram(
            [Program(from_bytes(code)) for code in self.code], style.version, self.layout, xdp=rules.xdp
        )

    def in_ip_set(self, version: int, key: bytes, known: bytes) -> bool | Unsure:
        assert version == self.version
        return self.trie.contains(key, known)

    def sub_program(self, index: int) -> Program | None:
        raise AssertionError(index)

    def compare(self, packet: generated.PolicyPacket) -> PolicyRun:
        """Run the packet here and there, and compare every byte."""
        state = state_of(packet, self.layout)
        before = bytes(state.data)
        ours = self.here.run_state(state, self, Chooser())
        self.kernel.update(self.state, bytes(4), before * self.kernel.cpus)
        context = b"" if self.here.xdp else skb((ALLOW_INDEX, DENY_INDEX))
        returned = self.kernel.run(self.programs[0], PACKET, context)
        after = self.kernel.lookup(self.state, bytes(4), self.layout.size * self.kernel.cpus)
        assert after is not None
        cpu = next(iter(os.sched_getaffinity(0)))
        assert bytes(state.data) == after[cpu * self.layout.size : (cpu + 1) * self.layout.size]
        allow, deny = (2, 4) if self.here.xdp else (ALLOW_INDEX, DENY_INDEX)
        expected = {100 + allow: Verdict.ALLOWED, 100 + deny: Verdict.DENIED, 2: Verdict.PASSED}
        assert expected[returned] is ours.verdict
        assert bool(number_in(state, self.layout, "flags") & FLAG_LOG_PACKET) == bool(ours.logged)
        assert tuple(hit.rule_id for hit in ours.hits)[:32] == ours.rule_ids
        return ours


class TestPolicies:
    @pytest.mark.parametrize("version", [4, 6])
    @pytest.mark.parametrize("seed", range(3))
    def test_generated_policies(self, kernel: Kernel, version: int, seed: int) -> None:
        rng = random.Random(seed * 10 + version)
        verdicts = set()
        for _ in range(30):
            split, header = rng.choice((10**9, 10**9, 12, 40)), rng.choice((0, 8))
            style = Style(version=version, header=header, split_after=split)
            loaded = Loaded(kernel, generated.rules(rng, version), style, generated.members(rng, version))
            if len(loaded.code) > 24:
                continue  # more parts than Felix makes
            for _ in range(40):
                verdicts.add(loaded.compare(generated.packet(rng, version)).verdict)
        assert verdicts == {Verdict.ALLOWED, Verdict.DENIED}

    def test_more_rules_than_are_noted(self, kernel: Kernel) -> None:
        tiers = tuple(
            generated.Tier(f"t{n}", (generated.Policy("p", (generated.Rule("pass", 500 + n),)),)) for n in range(40)
        )
        loaded = Loaded(kernel, Rules(tiers=tiers, suppress_host=True, no_profile_id=3), Style(), [])
        run = loaded.compare(generated.packet(random.Random(1), 4))
        assert run.rule_ids == tuple(range(500, 532))
        assert run.verdict is Verdict.DENIED

    @pytest.mark.parametrize("seed", range(4))
    def test_untracked_policies(self, kernel: Kernel, seed: int) -> None:
        rng = random.Random(seed)
        verdicts = set()
        for _ in range(6):
            tier = generated.Tier("untracked", generated.policies(rng, 4, 2, 256), "pass", 9)
            loaded = Loaded(kernel, Rules(normal=(tier,), xdp=True), Style(), generated.members(rng, 4))
            for _ in range(40):
                verdicts.add(loaded.compare(generated.packet(rng, 4)).verdict)
        assert verdicts == {Verdict.ALLOWED, Verdict.DENIED, Verdict.PASSED}

    @pytest.mark.parametrize("version", [4, 6])
    def test_as_bpftool_dumps_it(self, kernel: Kernel, version: int) -> None:
        """The loaded program, rewritten by the kernel and dumped, decides as the one that was loaded."""
        if shutil.which("bpftool") is None:
            pytest.skip("bpftool is missing: install the package bpftool")
        rng = random.Random(version)
        for _ in range(4):
            rules = generated.rules(rng, version)
            loaded = Loaded(kernel, rules, Style(version=version, split_after=60), generated.members(rng, version))
            dumped = []
            for program in loaded.programs:
                command = ["bpftool", "-j", "prog", "dump", "xlated", "id", str(kernel.program_id(program)), "opcodes"]
                done = subprocess.run(command, capture_output=True, check=True)
                dumped.append(from_xlated(json.loads(done.stdout)))
            roles = {
                MapReference("id", kernel.map_id(loaded.state)): Role.STATE,
                MapReference("id", kernel.map_id(loaded.sets)): Role.IP_SETS,
            }
            there = PolicyProgram(dumped, version, LAYOUT, roles)
            for _ in range(30):
                packet = generated.packet(rng, version)
                run = loaded.compare(packet)
                again = there.run(packet, loaded, Chooser())
                assert (again.verdict, again.rule_ids) == (run.verdict, run.rule_ids)


@RECORDED
def test_recorded_programs(kernel: Kernel, recording: Recording) -> None:
    """Felix's own programs, from its debug files, with the recorded IP sets, over the recorded probes."""
    cluster = RecordedCluster(recording)
    version, cpu = cluster.version, next(iter(os.sched_getaffinity(0)))
    static = kernel.map(PROG_ARRAY, 4, 4, 16)
    for index in (ALLOW_INDEX, DENY_INDEX):
        end = Assembler()
        end.exit(100 + index)
        program = kernel.program(b"".join(end.raw()))
        kernel.update(static, index.to_bytes(4, "little"), program.to_bytes(4, "little"))
    state_map = kernel.map(PERCPU_ARRAY, 4, LAYOUT.size, 2)
    runs = 0
    for name, node in cluster.nodes.items():
        sets = kernel.map(LPM_TRIE, KEY_BYTES[version], 4, 4096)
        for entry in node.json(f"bpf/map-cali_v{version}_ip_sets.json"):
            kernel.update(sets, octets(entry["key"]), octets(entry["value"]))
        ours = {Role.STATE: state_map, Role.IP_SETS: sets, Role.VERDICT: static}
        packets = [next(cluster.packets(probe, name)) for probe in cluster.probes[::9]]
        for file, debug in node.debug_files():
            if not file.endswith(f"_v{version}"):
                continue
            here = policy_of_debug(debug, version)
            [part] = debug.programs
            code = to_bytes(
                replace(one, immediate=ours[here.roles[MapReference("fd", one.immediate)]])
                if (one.code, one.source) == (LOAD_WIDE, MAP)
                else one
                for one in part.instructions
            )
            program = kernel.program(code)
            for packet in packets:
                state = state_of(packet, LAYOUT)
                kernel.update(state_map, bytes(4), bytes(state.data) * kernel.cpus)
                run = here.run_state(state, node, Chooser())
                returned = kernel.run(program, PACKET, skb((ALLOW_INDEX, DENY_INDEX)))
                after = kernel.lookup(state_map, bytes(4), LAYOUT.size * kernel.cpus)
                assert after is not None
                assert after[cpu * LAYOUT.size : (cpu + 1) * LAYOUT.size] == bytes(state.data)
                assert returned == 100 + (ALLOW_INDEX if run.verdict is Verdict.ALLOWED else DENY_INDEX)
                runs += 1
    assert runs > 500
