"""Functions by address."""

from __future__ import annotations

from calico_debug.decode.kallsyms import FARTHEST, Symbols

TEXT = """ffffffff81000000 T _stext
ffffffff81000100 t nft_do_chain	[nf_tables]
ffffffff81000200 T nf_hook_slow
ffffffff81000180 D some_data
garbage
"""


def test_the_function_that_an_address_is_in() -> None:
    symbols = Symbols(TEXT)
    assert symbols.name(0xFFFFFFFF81000100) == "nft_do_chain"
    assert symbols.name(0xFFFFFFFF810001FF) == "nft_do_chain"
    assert symbols.name(0xFFFFFFFF81000200) == "nf_hook_slow"


def test_addresses_of_nothing() -> None:
    symbols = Symbols(TEXT)
    assert symbols.name(0x10) == ""
    assert symbols.name(0xFFFFFFFF81000200 + FARTHEST + 1) == ""


def test_hidden_addresses_name_nothing() -> None:
    assert Symbols("0000000000000000 T _stext\n0000000000000000 t nft_do_chain\n").name(0) == ""
    assert Symbols("").name(0xFFFFFFFF81000000) == ""
