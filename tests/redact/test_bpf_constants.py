"""What constants of policy programs stand for, and programs that are not understood."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.model.bytecode import EXIT, Instruction, Program
from calico_debug.redact.bpf_constants import Constants, ShapeError, constants_of
from calico_debug.walk.bpf_state import LAYOUTS
from tests.bytecode import generated
from tests.bytecode.assembler import ADD, AND, JEQ, JGT, JNE, MOV, OR, RSH, Assembler
from tests.bytecode.felix import Policy, Rule, Rules, Style, Tier, debug_file

LAYOUT = LAYOUTS[-1]
SOURCE = LAYOUT.fields["ip_src"][0]
ADDRESS, MASK = 0x0007120A, 0x00FFFFFF
"""10.18.7.0/24 as a program holds it."""


def networks(rules: Rules, style: Style) -> set[str]:
    debug = decode_policy_debug(debug_file(rules, style), "made up")
    constants = [constants_of(program, style.version, LAYOUT) for program in debug.programs]
    return {str(word.network) for one in constants for word in one.words.values()}


def steps(net: str) -> set[str]:
    """What a program compares with for a network: itself, and before that its first words."""
    network = ip_network(net)
    words = range(32, network.prefixlen, 32) if network.version == 6 else ()
    return {str(network), *(str(network.supernet(new_prefix=length)) for length in words)}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("negated", [False, True])
def test_networks_of_rules_are_found(version: int, negated: bool) -> None:
    nets = generated.NETS[version]
    rule = Rule("allow", 1, not_source_nets=nets) if negated else Rule("allow", 1, source_nets=nets)
    rules = Rules(tiers=(Tier("t", (Policy("p", (rule,)),)),), suppress_host=True)
    assert networks(rules, Style(version=version)) == set().union(*map(steps, nets))


@given(st.integers(0, 2**32), st.sampled_from((4, 6)))
def test_every_number_of_a_generated_program_is_understood(seed: int, version: int) -> None:
    rules = generated.rules(random.Random(seed), version)
    debug = decode_policy_debug(debug_file(rules, Style(version=version)), "made up")
    for program in debug.programs:
        constants = constants_of(program, version, LAYOUT)
        assert {number for number, _ in constants.set_halves.values()} <= set(generated.SETS)


def started() -> Assembler:
    """A program that holds its state in register 9."""
    a = Assembler()
    a.alu_register(MOV, 6, 1)
    a.alu(MOV, 1, 0)
    a.store(4, 10, -4, 1)
    a.alu_register(MOV, 2, 10)
    a.alu(ADD, 2, -4)
    a.wide(1, 11, 1)
    a.call(1)
    a.branch(JEQ, 0, 0, "exit")
    a.alu_register(MOV, 9, 0)
    return a


def ended(a: Assembler, family: int = 4) -> Constants:
    a.label("exit")
    a.exit(2)
    return constants_of(Program(a.instructions()), family, LAYOUT)


def compared(a: Assembler, word: int = 0, mask: int = MASK, value: int = ADDRESS, operation: int = JEQ) -> None:
    a.load(4, 1, 9, SOURCE + 4 * word)
    a.alu(MOV, 2, mask, bits=32)
    a.alu_register(AND, 2, 1, bits=32)
    a.branch(operation, 2, value, "exit", bits=32)


def test_a_network() -> None:
    a = started()
    compared(a)
    [word] = ended(a).words.values()
    assert (str(word.network), word.place) == ("10.18.7.0/24", 0)


def test_a_relay_in_between_is_followed() -> None:
    """Felix puts jumps that were too long wherever there is room (felix/bpf/asm, trampolines)."""
    a = started()
    a.load(4, 1, 9, SOURCE)
    a.alu(MOV, 2, MASK, bits=32)
    a.jump("skip")
    a.jump("exit")
    a.label("skip")
    a.alu_register(AND, 2, 1, bits=32)
    a.branch(JEQ, 2, ADDRESS, "exit", bits=32)
    assert len(ended(a).words) == 1


def test_a_word_that_is_reached_from_several_places() -> None:
    a = started()
    a.load(1, 3, 9, LAYOUT.fields["ip_proto"][0])
    a.branch(JEQ, 3, 6, "both")
    a.alu(MOV, 4, 5)
    a.label("both")
    compared(a)
    assert len(ended(a).words) == 1


def unmasked(a: Assembler) -> None:
    a.load(4, 1, 9, SOURCE)
    a.branch(JEQ, 1, ADDRESS, "exit", bits=32)


def ordered(a: Assembler) -> None:
    a.load(4, 1, 9, SOURCE)
    a.branch(JGT, 1, 200, "exit", bits=32)


def with_register(a: Assembler) -> None:
    a.load(4, 1, 9, SOURCE)
    a.alu(MOV, 2, 100)
    a.branch_register(JEQ, 1, 2, "exit")


def shifted(a: Assembler) -> None:
    a.load(4, 1, 9, SOURCE)
    a.alu(RSH, 1, 8)
    a.branch(JEQ, 1, 7, "exit")


def of_the_stack(a: Assembler) -> None:
    a.load(4, 1, 9, SOURCE)
    a.store(4, 10, -8, 1)
    a.load(4, 1, 10, -8)
    a.branch(JEQ, 1, 7, "exit")


def whole_address(a: Assembler) -> None:
    a.load(8, 1, 9, SOURCE)
    a.branch(JEQ, 1, 7, "exit")


def half_address(a: Assembler) -> None:
    a.load(2, 1, 9, SOURCE)
    a.branch(JEQ, 1, 7, "exit")


def either(a: Assembler) -> None:
    a.load(4, 1, 9, SOURCE)
    a.branch(JEQ, 3, 0, "both")
    a.alu(MOV, 1, 5)
    a.label("both")
    a.branch(JEQ, 1, 7, "exit")


def unmapped(a: Assembler) -> None:
    a.load(4, 1, 9, 76)
    a.branch(JEQ, 1, 7, "exit")


def from_a_packet(a: Assembler) -> None:
    a.load(4, 1, 6, 76)
    a.load(4, 1, 1, 26)
    a.branch(JEQ, 1, 7, "exit")


def loop(a: Assembler) -> None:
    a.label("again")
    a.branch(JEQ, 3, 7, "again")


REFUSED: tuple[tuple[Callable[[Assembler], None], str], ...] = (
    (unmasked, "compares an address in another way"),
    (ordered, "compares an address in another way"),
    (with_register, "compares an address in another way"),
    (shifted, "compares an address in another way"),
    (of_the_stack, "compares an address in another way"),
    (whole_address, "compares an address in another way"),
    (half_address, "compares an address in another way"),
    (either, "compares an address in another way"),
    (unmapped, "compares an address in another way"),
    (from_a_packet, "compares an address in another way"),
    (lambda a: compared(a, operation=JGT), "compares an address in another way"),
    (lambda a: compared(a, mask=0x00FF00FF), "bits of an address that are no network's"),
    (lambda a: compared(a, value=ADDRESS | 0x01000000), "bits of an address that are no network's"),
    (lambda a: compared(a, word=1), "without those before it"),
    (loop, "jumps where no policy program jumps"),
    (lambda a: a.alu(MOV, 3, ADDRESS, bits=32), "holds a number whose meaning is not known"),
    (lambda a: a.wide(3, ADDRESS), "holds a number whose meaning is not known"),
    (lambda a: a.alu(OR, 3, ADDRESS), "holds a number whose meaning is not known"),
    (lambda a: a.wide(3, 5, 3), "loads what no policy program loads"),
)


@pytest.mark.parametrize(("write", "why"), REFUSED)
def test_other_shapes_are_refused(write: Callable[[Assembler], None], why: str) -> None:
    a = started()
    write(a)
    with pytest.raises(ShapeError, match=why):
        ended(a)


def test_a_second_word_needs_the_first_on_the_same_way() -> None:
    a = started()
    compared(a, 0, 0xFFFFFFFF, 0x000000FD, JNE)
    compared(a, 1, 0xFFFF, 0x0100)
    words = [(str(word.network), word.place) for word in ended(a, 6).words.values()]
    assert words == [("fd00::/32", 0), ("fd00:0:1::/48", 1)]
    a = started()
    compared(a, 0, 0xFFFFFFFF, 0x000000FD, JEQ)
    compared(a, 1, 0xFFFF, 0x0100)
    with pytest.raises(ShapeError, match="without those before it"):
        ended(a, 6)


def test_a_set_whose_id_is_not_known() -> None:
    a = started()
    a.wide(1, 12, 1)
    a.alu_register(MOV, 2, 10)
    a.alu(ADD, 2, -32)
    a.call(1)
    with pytest.raises(ShapeError, match="an IP set whose id is not known"):
        ended(a)


def test_a_comparison_that_is_never_reached() -> None:
    a = started()
    a.label("exit")
    a.exit(2)
    unreached = (Instruction(0x15, 3, immediate=7), Instruction(EXIT))
    with pytest.raises(ShapeError, match="is a comparison that is never reached"):
        constants_of(Program((*a.instructions(), *unreached)), 4, LAYOUT)
