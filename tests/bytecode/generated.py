"""Random programs and policies for comparison with the kernel. The same seed gives the same."""

from __future__ import annotations

import random
from ipaddress import ip_address

from calico_debug.walk.bpf_state import PolicyPacket
from tests.bytecode import assembler as asm
from tests.bytecode.assembler import Assembler
from tests.bytecode.felix import Policy, Rule, Rules, Tier

SETS = (0x1122334455667788, 0xFEDCBA9876543210, 0x00000000DEADBEEF)
NETS = {
    4: ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "192.168.0.0/17", "10.1.2.128/25"),
    6: ("fd00::/8", "fd00:1::/32", "fd00:1:2::/48", "fd00:1:2:3::/64", "fd00:1:2:3::4/128", "::/0", "fd00:1:2:3::/70"),
}
HOSTS = {
    4: ("10.1.2.3", "10.1.2.200", "10.9.9.9", "192.168.1.1", "192.168.200.1", "8.8.8.8"),
    6: ("fd00:1:2:3::4", "fd00:1:2:3::5", "fd00:1:2:4::1", "fd00:9::9", "2001:db8::1", "fd01::1"),
}
PORTS = (1, 53, 80, 443, 1024, 8080, 65535, 0x0008, 0x0108)


def alu_program(rng: random.Random, values: int, map_descriptor: int) -> Assembler:
    """Arithmetic, stack traffic and forward branches over a map's value, the results written back into it.

    The value holds ``values`` numbers of 8 bytes, which registers 2 to 8 and 0 start from.
    """
    a = Assembler()
    a.alu(asm.MOV, 1, 0)
    a.store(4, 10, -4, 1)
    a.alu_register(asm.MOV, 2, 10)
    a.alu(asm.ADD, 2, -4)
    a.wide(1, map_descriptor, 1)
    a.call(1)
    a.branch(asm.JNE, 0, 0, "found")
    a.exit(77)
    a.label("found")
    a.alu_register(asm.MOV, 9, 0)
    registers = (0, 2, 3, 4, 5, 6, 7, 8)
    for number, register in enumerate(registers):
        a.load(8, register, 9, 8 * (number % values))
    for slot in range(4):
        a.store(8, 10, -16 - 8 * slot, registers[slot])
    for number in range(rng.randrange(8, 40)):
        _random_step(a, rng, registers, f"after_{number}")
    for number, register in enumerate(registers):
        a.store(8, 9, 8 * (number % values), register)
    a.exit()
    return a


def _random_step(a: Assembler, rng: random.Random, registers: tuple[int, ...], label: str) -> None:
    bits = rng.choice((32, 64))
    dst, src = rng.choice(registers), rng.choice(registers)
    number = rng.choice((0, 1, -1, 2, 0x7FFFFFFF, -0x80000000, rng.getrandbits(32) - (1 << 31)))
    kind = rng.randrange(13)
    if kind < 3:
        operation = rng.choice((asm.ADD, asm.SUB, asm.MUL, asm.OR, asm.AND, asm.XOR, asm.MOV, asm.DIV, asm.MOD))
        if operation in (asm.DIV, asm.MOD) and number == 0:
            number = 7
        a.alu(operation, dst, number, bits=bits)
    elif kind < 5:
        operation = rng.choice(
            (asm.ADD, asm.SUB, asm.MUL, asm.OR, asm.AND, asm.XOR, asm.MOV, asm.LSH, asm.RSH, asm.ARSH)
        )
        a.alu_register(operation, dst, src, bits=bits)
    elif kind == 5:
        a.alu(rng.choice((asm.LSH, asm.RSH, asm.ARSH)), dst, rng.randrange(bits), bits=bits)
    elif kind == 6:
        a.alu_register(rng.choice((asm.DIV, asm.MOD)), dst, src, bits=bits, off=rng.randrange(2))
    elif kind == 7:
        width = rng.choice((8, 16, 32) if bits == 64 else (8, 16))
        a.alu_register(asm.MOV, dst, src, bits=bits, off=width)
    elif kind == 8:
        a.emit(rng.choice((0xD4, 0xDC, 0xD7)), dst, imm=rng.choice((16, 32, 64)))
        a.alu(asm.NEG, dst, 0, bits=bits)
    elif kind == 9:
        size = rng.choice((1, 2, 4, 8))
        at = -16 - 8 * rng.randrange(4) + rng.randrange(8 // size) * size
        if rng.randrange(2):
            a.store(size, 10, at, src)
        else:
            a.emit(0x62 | asm.WIDTH[size], 10, 0, at, number)
        a.emit(rng.choice((0x61, 0x81)) | asm.WIDTH[rng.choice((1, 2, 4))], dst, 10, -16 - 8 * rng.randrange(4))
    elif kind == 10:
        size, operation = rng.choice((4, 8)), rng.choice((0x00, 0x40, 0x50, 0xA0, 0x01, 0x41, 0x51, 0xA1, 0xE1, 0xF1))
        a.emit(0xC3 | asm.WIDTH[size], 9, src, 8 * rng.randrange(4), operation)
    elif kind == 11:
        a.wide(dst, rng.getrandbits(64))
    else:
        operation = rng.choice(
            (asm.JEQ, asm.JGT, asm.JGE, asm.JSET, asm.JNE, asm.JSGT, asm.JSGE, asm.JLT, asm.JLE, asm.JSLT, asm.JSLE)
        )
        if rng.randrange(2):
            a.branch(operation, dst, number, label, bits=bits)
        else:
            a.branch_register(operation, dst, src, label, bits=bits)
        for _ in range(rng.randrange(1, 4)):
            a.alu(rng.choice((asm.ADD, asm.XOR)), rng.choice(registers), rng.getrandbits(31), bits=rng.choice((32, 64)))
        a.label(label)


def policies(rng: random.Random, version: int, count: int, first_id: int) -> tuple[Policy, ...]:
    """Policies with a few rules each, of every kind of match."""
    made = []
    for number in range(count):
        rules = [_rule(rng, version, first_id + 16 * number + index) for index in range(rng.randrange(1, 5))]
        made.append(Policy(f"p{first_id}-{number}", tuple(rules)))
    return tuple(made)


def _rule(rng: random.Random, version: int, match_id: int) -> Rule:
    def some(*choices: object) -> bool:
        return rng.random() < 1 / len(choices) if choices else rng.random() < 0.3

    nets = NETS[version]
    ports = tuple(sorted((rng.choice(PORTS), rng.choice(PORTS))))
    one = rng.choice(PORTS)
    return Rule(
        rng.choice(("allow", "deny", "pass", "log")),
        match_id << 32 | rng.getrandbits(32),
        protocol=rng.choice(("tcp", "udp", "sctp", 58)) if some() else None,
        not_protocol=rng.choice(("tcp", "icmp")) if rng.random() < 0.1 else None,
        source_nets=tuple(rng.sample(nets, rng.randrange(1, 3))) if some() else (),
        not_source_nets=(rng.choice(nets),) if rng.random() < 0.1 else (),
        destination_nets=tuple(rng.sample(nets, rng.randrange(1, 3))) if some() else (),
        not_destination_nets=(rng.choice(nets),) if rng.random() < 0.1 else (),
        source_set=rng.choice(SETS) if some() else 0,
        not_source_set=rng.choice(SETS) if rng.random() < 0.1 else 0,
        destination_set=rng.choice(SETS) if some() else 0,
        not_destination_set=rng.choice(SETS) if rng.random() < 0.1 else 0,
        source_ports=((ports[0], ports[1]),) if rng.random() < 0.2 else (),
        destination_ports=((one, one), (ports[0], ports[1])) if some() else (),
        not_destination_ports=((one, one),) if rng.random() < 0.1 else (),
        named_port_set=rng.choice(SETS) if rng.random() < 0.2 else 0,
        icmp=rng.choice(((8, None), (8, 1), (0, None))) if rng.random() < 0.1 else None,
        version=rng.choice((None, None, None, 4, 6)),
    )


def rules(rng: random.Random, version: int) -> Rules:
    """The policy of a workload or a host interface."""

    def tiers(most: int, first: int) -> tuple[Tier, ...]:
        return tuple(
            Tier(
                f"t{first + n}",
                policies(rng, version, rng.randrange(1, 4), 256 * (first + n)),
                rng.choice(("deny", "pass")),
                9000 + first + n,
            )
            for n in range(rng.randrange(most + 1))
        )

    host = rng.random() < 0.4
    return Rules(
        tiers=() if host else tiers(3, 1),
        profiles=() if host else policies(rng, version, rng.randrange(3), 7000),
        host=host,
        suppress_host=not host,
        pre_dnat=tiers(1, 20),
        forward=tiers(1, 30),
        normal=tiers(2, 40) if host else (),
        host_profiles=policies(rng, version, 1, 8000) if host else (),
    )


def members(rng: random.Random, version: int) -> list[bytes]:
    """Keys of the IP sets: networks, and addresses with port and protocol."""
    size, whole = (4, 32) if version == 4 else (16, 128)
    keys = []
    for number in SETS:
        for net in rng.sample(NETS[version][:5], rng.randrange(1, 4)):
            address, _, bits = net.partition("/")
            if int(bits):
                packed = ip_address(address).packed
                keys.append((64 + int(bits)).to_bytes(4, "little") + number.to_bytes(8, "big") + packed + bytes(4))
        for host in rng.sample(HOSTS[version], 2):
            port = rng.choice(PORTS).to_bytes(2, "little") + bytes((rng.choice((6, 17)), 0))
            length = (64 + whole + 24).to_bytes(4, "little")
            keys.append(length + number.to_bytes(8, "big") + ip_address(host).packed[:size] + port)
    return keys


def packet(rng: random.Random, version: int) -> PolicyPacket:
    """A packet that policies of `policies` speak about."""
    hosts = [int(ip_address(host)) for host in HOSTS[version]]
    return PolicyPacket(
        version,
        rng.choice((6, 17, 1, 58, 132)),
        rng.choice(hosts),
        rng.choice(hosts),
        rng.choice(PORTS),
        rng.choice(PORTS),
        rng.choice(hosts),
        rng.choice(PORTS),
        rng.random() < 0.2,
        rng.random() < 0.2,
    )
