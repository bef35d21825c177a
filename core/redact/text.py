"""Names and addresses in running text, replaced where they stand: the same word by the same word everywhere.

A name is replaced part by part (``platform.client-egress`` keeps its dot), so a tier in front of a policy's name, a
namespace in a comment and a label's value stay what they are to each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from string import ascii_lowercase, hexdigits

from calico_debug.intent.ip_sets import NAME_LIMIT
from calico_debug.policy.chains import ChainKind, ChainRole, chain_role
from calico_debug.redact.addresses import AddressMap
from calico_debug.redact.vocabulary import KEPT

TOKEN_LENGTH = 8
"""A letter and 7 of 36 characters: 36 bits."""

SHORTEST_TOKEN = 3
"""Of a name that has not the room for more."""

SET_ID_LENGTH = NAME_LIMIT - len("cali40")
"""Characters of an IP set's id that its name in the kernel has room for."""

BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TOKEN_ALPHABET = ascii_lowercase + "0123456789"

LONG_NUMBER = 7
"""Digits from which a number in a name may be somebody's."""

INTERFACE_SUBJECTS = frozenset(
    {
        ChainKind.WORKLOAD,
        ChainKind.HOST,
        ChainKind.HOST_FORWARD,
        ChainKind.ENDPOINT_MARK,
        ChainKind.ARP,
    }
)
DISPATCHES = frozenset(
    {ChainKind.WORKLOAD_DISPATCH, ChainKind.HOST_DISPATCH, ChainKind.HOST_FORWARD_DISPATCH, ChainKind.ENDPOINT_MARK}
)
IDS = frozenset({ChainKind.POLICY, ChainKind.PROFILE, ChainKind.POLICY_GROUP})

USUAL_INTERFACE = re.compile(
    r"lo|eth\d+|eno\d+|en(?:p\d+)?s\d+(?:f\d+)?(?:np\d+)?|bond\d+|wlan\d+|tunl\d|dummy\d+|docker0|kube-ipvs0|kube-bridge|cni0|cbr0"
    r"|nodelocaldns|bpfin|bpfout|sit0|ip6tnl0|gre0|gretap0|erspan0|ip_vti0|ip6_vti0|ip6gre0|cilium_host|cilium_net"
)
"""Names that distributions and plugins give, which say nothing of whose they are."""

NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:us|ms|[smhd])?")

_WORD = r"[^\W_](?:[^\W_]|-|_(?!_))*"
_TOKEN = re.compile(
    r"(?P<mac>(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?![0-9A-Fa-f:]))"
    r"|(?P<v4>(?<![0-9.])\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,3})?(?!\d|\.\d))"
    r"|(?P<v6>(?<![0-9A-Za-z:])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]{0,15}(?:/\d{1,3})?(?![0-9A-Za-z:]))"
    r"|(?P<rule>(?<![A-Za-z0-9])cali:(?P<rulehash>[A-Za-z0-9_-]{16})(?![A-Za-z0-9_-]))"
    r"|(?P<interface>(?<![A-Za-z0-9])cali(?P<hex>[0-9a-f]{11}|[0-9a-f]{1,10}(?=[+*]))(?![A-Za-z0-9]))"
    r"|(?P<set>(?<![A-Za-z0-9])cali[46][0-9t](?P<setid>[A-Za-z0-9_:-]+))"
    r"|(?P<chain>(?<![A-Za-z0-9])(?:(?:filter|nat|mangle|raw)-)?cali-[^\s\"',;\]})]+"
    r"|(?<![A-Za-z0-9])(?:filter|nat|mangle|raw)-(?:INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING)(?![A-Za-z0-9-]))"
    r"|(?P<kube>(?<![A-Za-z0-9])(?P<kubekind>KUBE-(?:SVC|SVL|SEP|FW|XLB|EXT)-)(?P<kubehash>[A-Z2-7]{16}))"
    r"|(?P<knft>(?<![A-Za-z0-9])(?P<knftkind>(?:service|endpoint|external|firewall|local|affinity)-)"
    r"(?P<knfthash>[A-Z2-7]{8})-)"
    rf"|(?P<word>{_WORD})"
)
_WORDS = re.compile(_WORD)
_HASH_OF_SET = re.compile(r"(s|n|svc|svcnoport|svcn|d|di|ipt)([:-])([A-Za-z0-9_-]+)")


class TextRedactor:
    """One consistent replacement of names and addresses; what it has replaced is in ``replaced``."""

    def __init__(self, key: bytes, *, addresses: bool, names: bool, chains: Mapping[bool, Mapping[str, str]]) -> None:
        """``key`` as for `AddressMap`. ``chains`` are policies' chain names, without layer, and what they become: in
        tables of nftables mode (True) and of iptables mode (False).
        """
        self._key = key
        self._addresses = AddressMap(key) if addresses else None
        self._names = names
        self._chains = chains
        self.replaced: dict[str, str] = {}
        self._sets: dict[str, str] = {}
        self._taken: set[str] = set()

    @property
    def addresses(self) -> AddressMap | None:
        """The mapping of addresses, None when they stay."""
        return self._addresses

    @property
    def names(self) -> bool:
        """Whether names are replaced."""
        return self._names

    def text(self, text: str, *, is_name: bool = False) -> str:
        """The text with everything replaced that is not vocabulary. In a name, long numbers are replaced as well."""
        return _TOKEN.sub(lambda match: self._token(match, is_name), text)

    def known(self, text: str) -> str:
        """The text with addresses replaced, and those words that were replaced elsewhere: for messages."""

        def one(match: re.Match[str]) -> str:
            if match["word"] or match["chain"]:
                return _WORDS.sub(lambda word: self.replaced.get(word[0], word[0]), match[0])
            return self._token(match, False)

        return _TOKEN.sub(one, text)

    def word(self, word: str, *, is_name: bool = False) -> str:
        """One word: a name, or a part of one."""
        if not self._names or word in KEPT or USUAL_INTERFACE.fullmatch(word):
            return word
        if NUMBER.fullmatch(word) and not (is_name and len(word) >= LONG_NUMBER):
            return word
        if word not in self.replaced:
            self.replaced[word] = self._new_token(word)
        return self.replaced[word]

    def add_sets(self, renamed: Mapping[str, str]) -> None:
        """Felix's ids of IP sets, with what they become."""
        for old, new in renamed.items():
            short, new_short = old[:SET_ID_LENGTH], new[:SET_ID_LENGTH]
            self._sets[old], self._sets[short] = new, new_short
            self._sets[short.replace(":", "-")] = new_short.replace(":", "-")

    def set_name(self, text: str) -> str:
        """Felix's name of an IP set, such as ``s:`` and a digest of a selector."""
        return self._set_id(text) if self._names else text

    def digest(self, text: str) -> str:
        """A digest in base64, such as Felix's id of a rule."""
        return self._hash(text, BASE64) if self._names else text

    def interface_start(self, name: str) -> str:
        """The beginning of the name of a pod's interface, ``cali`` and some digits."""
        return f"cali{self._hexadecimal(name.removeprefix('cali'))}" if self._names else name

    def fit(self, names: Iterable[str], longest: int) -> None:
        """Choose words for the parts of these names so that what stands for them is no longer than ``longest``, where
        that can be. To be called before they are replaced: what has a word already keeps it.
        """
        before = frozenset(self.replaced)
        for name in names:
            new = self.text(name, is_name=True)
            parts = [part for part in dict.fromkeys(_WORDS.findall(name)) if part in self.replaced.keys() - before]
            each = (longest - len(new)) // max(len(parts), 1) + TOKEN_LENGTH
            if len(new) > longest and each >= SHORTEST_TOKEN:
                self.replaced.update((part, self._new_token(part, each)) for part in parts)

    def keep_order(self, names: Iterable[str]) -> None:
        """Have the words of these names sort afterwards as they do now: where names decide which of several goes first.
        To be called before anything else.
        """
        words = {match[0] for name in names for match in _TOKEN.finditer(name) if match["word"]}
        ordered = sorted(word for word in words if word not in self.replaced and self.word(word, is_name=True) != word)
        tokens = sorted(self.replaced[word] for word in ordered)
        self.replaced.update(zip(ordered, tokens, strict=True))

    # ------------------------------------------------------------------------------------------------------ internals

    def _token(self, match: re.Match[str], is_name: bool) -> str:
        found = match[0]
        if match["mac"] is not None:
            return self._addresses.mac(found) if self._addresses else found
        if match["v4"] is not None or match["v6"] is not None:
            return self._address(found, is_name)
        if not self._names:
            return found
        if match["rule"] is not None:
            return f"cali:{self._hash(match['rulehash'], BASE64)}"
        if match["set"] is not None:
            return found[: -len(match["setid"])] + self._set_id(match["setid"])
        if match["chain"] is not None:
            return self._chain(found)
        if match["interface"] is not None:
            return f"cali{self._hexadecimal(match['hex'])}"
        if match["kube"] is not None:
            return match["kubekind"] + self._hash(match["kubehash"], BASE32)
        if match["knft"] is not None:
            return f"{match['knftkind']}{self._hash(match['knfthash'], BASE32)}-"
        return self.word(found, is_name=is_name)

    def _address(self, found: str, is_name: bool) -> str:
        if self._addresses is None:
            return found
        mapped = self._addresses.text(found)
        if mapped is None and "/" in found:
            before, slash, behind = found.partition("/")
            mapped = self._addresses.text(before)
            mapped = f"{mapped}{slash}{behind}" if mapped is not None else None
        if mapped is not None:
            return mapped
        return _WORDS.sub(lambda word: self.word(word[0], is_name=is_name), found)

    def _chain(self, name: str) -> str:
        role = chain_role(name)
        if role is None or not role.subject:
            return name
        before, subject = name.removesuffix(role.subject), role.subject
        if role.kind in IDS:
            bare = name[len(role.layer) + 1 :] if role.layer else name
            new = self._chains[bool(role.layer)].get(bare) or self._chains[not role.layer].get(bare)
            if new is not None:
                return name.removesuffix(bare) + new
            if role.hashed or role.kind is ChainKind.POLICY_GROUP:
                return before + self._hash(subject, BASE64)
            return before + self.text(subject, is_name=True)
        if role.kind in DISPATCHES and self._is_branch(role):
            return before + self._hexadecimal(subject) if set(subject) <= set(hexdigits) else name
        if role.kind in INTERFACE_SUBJECTS and before != name:
            return before + (self._hash(subject, BASE64) if role.hashed else self.text(subject))
        return name if role.kind in (ChainKind.BASE, ChainKind.HOOK) else before + self.text(subject)

    @staticmethod
    def _is_branch(role: ChainRole) -> bool:
        """Whether a chain is a branch of a dispatch tree: its subject is what follows ``cali`` in interfaces' names."""
        return role.kind is not ChainKind.ENDPOINT_MARK or len(role.subject) < len("cali0")

    def _set_id(self, text: str) -> str:
        if text in KEPT:
            return text
        if text in self._sets:
            return self._sets[text]
        if match := _HASH_OF_SET.fullmatch(text):
            return f"{match[1]}{match[2]}{self._hash(match[3], BASE64)}"
        return self._hash(text, BASE64)

    def _hexadecimal(self, digits: str) -> str:
        """Digits behind ``cali``, each replaced depending on those before it: Felix sorts interfaces into a tree of
        chains by the beginnings of their names.
        """
        found = ""
        for place, digit in enumerate(digits):
            order = sorted("0123456789abcdef", key=lambda one: self._digest(f"{digits[:place]}/{one}", b"hex"))
            found += order[int(digit, 16)]
        return found

    def _hash(self, text: str, alphabet: str) -> str:
        digest = int.from_bytes(self._digest(text, b"hash"))
        start = "_" if text.startswith("_") else ""
        found = []
        for _ in range(len(text) - len(start)):
            digest, remainder = divmod(digest, len(alphabet))
            found.append(alphabet[remainder])
        return start + "".join(found)

    def _new_token(self, word: str, length: int = TOKEN_LENGTH) -> str:
        for attempt in range(100):
            number = int.from_bytes(self._digest(f"{attempt}/{word}", b"word"))
            letters = [ascii_lowercase[number % 26]]
            number //= 26
            for _ in range(length - 1):
                number, remainder = divmod(number, len(TOKEN_ALPHABET))
                letters.append(TOKEN_ALPHABET[remainder])
            token = "".join(letters)
            if token not in self._taken and token not in KEPT:
                self._taken.add(token)
                return token
        raise AssertionError("a hundred names in a row were taken")

    def _digest(self, text: str, purpose: bytes) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), key=self._key, person=purpose).digest()
