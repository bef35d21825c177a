"""What Felix writes beside a policy program's instructions: comments, labels and annotations, with names and addresses
replaced. What has none of Felix's forms is replaced word by word.

Forms: felix/bpf/polprog/pol_prog_builder.go of v3.28 to master, felix/bpf/asm (labels, annotations), and
felix/proto/felixbackend.proto, whose text form rules are printed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from calico_debug.decode.bpf_instructions import HELPERS
from calico_debug.redact.bpf_vocabulary import LABEL_WORDS, PROTO_WORDS
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor
from calico_debug.walk.bpf_state import LAYOUTS

_PROTOCOLS: Final = r"(?:tcp|udp|icmp|icmp6|icmpv6|sctp|udplite|\d*)"
_SIDE: Final = r"(?:source|dest|destPreNAT)"
_PLAIN: Final = re.compile(
    r"Load packet metadata saved by previous program|Save state pointer in register R9"
    r"|(?:Deny|Allow) jump to \d+|Splitting program after \d+ jumps|##### Start of program \d+ #####"
    r"|Tail call to policy program at index [-\d +*=]+"
    rf"|If protocol [!=]= {_PROTOCOLS}, skip to next rule"
    r"|If ICMP type [!=]= \d+(?: (?:or|and) code [!=]= \d+)?, skip to next rule"
    rf"|If {_SIDE} port is (?:not )?within any of \{{[-\d,]*\}}, skip to next rule"
    rf"|If {_SIDE} doesn't match any of the IP sets, skip to next rule"
)
"""Comments without names and addresses."""

_TIER_END: Final = re.compile(r"(End of tier )(.*?)((?:: (?:deny|pass))?)")
_START: Final = re.compile(r"(Start of (?:tier|policy) |End of policy )(.*)")
_POLICY: Final = re.compile(r"((?:Start|End) of )([A-Z]\w*|) (\S*)( \d+)")
_RULE: Final = re.compile(r"(Start of rule )(?:([^\s:]+) +)?(.*)", re.DOTALL)
_RULE_END: Final = re.compile(r"(End of rule )(?:(\S+) )?([A-Za-z0-9_-]*)")
_MATCH_ID: Final = re.compile(r"(Rule MatchID: )(\d{1,20})")
_SETS: Final = re.compile(r"(IPSets )(?:(?:not_)?(?:src|dst)_ip_set_ids:<[0-9a-fx,]*> ?)*")
_NETWORKS: Final = re.compile(rf"(If {_SIDE} (?:not )?in \{{)(.*)(\}}, skip to next rule)")
_SET: Final = re.compile(
    rf"(If {_SIDE} (?:doesn't match|matches) ipset )(\S+)( \(0x)([0-9a-f]{{1,16}})"
    r"(\), (?:skip to next rule|jump to next ipset))"
)
_NAMED_PORTS: Final = re.compile(
    rf"(If {_SIDE} port is (?:not )?within any of the named ports \{{)(.*)(\}}, skip to next rule)"
)
_NUMBER: Final = re.compile(r"0x([0-9a-f]{1,16})")

_LABEL: Final = re.compile(r"[a-z]+(?:[-_](?:[a-z]+|\d+))*")
_FIELDS: Final = "|".join(LAYOUTS[-1].fields)
_ANNOTATION: Final = re.compile(
    rf"R\d+ = \*\(u\d+ \*\)\(R\d+ \+ \d+\) /\* (?:state->(?:{_FIELDS})|skb->cb\[\d\]|) \*/"
    rf"|\*\(u\d+ \*\) \(R\d+ \+ \d+\) /\* (?:state->(?:{_FIELDS})|) \*/ = R\d+"
    rf"|call (?:{'|'.join(HELPERS.values())})"
)
_GOTO: Final = re.compile(r"(goto )(\S+)")

_TEXT_FORM: Final = re.compile(
    r'(?:(?P<field>\w+):\s*)?"(?P<text>(?:[^"\\]|\\.)*)"|(?P<word>[A-Za-z_]\w*)|(?P<number>\d[\w.:/]*)|.', re.DOTALL
)
_VERBATIM: Final = frozenset({"action"})


class CommentRedactor:
    """Changes what stands beside instructions."""

    def __init__(self, text: TextRedactor, numbers: NumberMap) -> None:
        """``text`` replaces names and addresses, ``numbers`` ids."""
        self._text = text
        self._numbers = numbers
        self._forms: Mapping[re.Pattern[str], Callable[[re.Match[str]], str]] = {
            _PLAIN: lambda found: found[0],
            _TIER_END: lambda found: f"{found[1]}{self._name(found[2])}{found[3]}",
            _START: lambda found: f"{found[1]}{self._name(found[2])}",
            _MATCH_ID: lambda found: f"{found[1]}{numbers.rule(int(found[2]))}",
            _SETS: lambda found: _NUMBER.sub(self._set_number, found[0]),
            _NETWORKS: lambda found: f"{found[1]}{','.join(map(self._name, found[2].split(',')))}{found[3]}",
            _SET: lambda found: f"{found[1]}{text.set_name(found[2])}{found[3]}{self._hexadecimal(found[4])}{found[5]}",
            _NAMED_PORTS: lambda found: f"{found[1]}{','.join(map(text.set_name, found[2].split(',')))}{found[3]}",
            _RULE: self._rule,
            _RULE_END: lambda found: f"{found[1]}{self._owner(found[2])}{text.digest(found[3])}",
            _POLICY: lambda found: f"{found[1]}{self._name(found[2])} {self._name(found[3])}{found[4]}",
        }

    def comment(self, comment: str) -> str:
        """A comment."""
        for form, change in self._forms.items():
            found = form.fullmatch(comment)
            if found is not None:
                return change(found)
        return self._name(comment)

    def label(self, label: str) -> str:
        """A label of an instruction, which jumps name."""
        words = re.findall(r"[a-z]+", label)
        return label if _LABEL.fullmatch(label) and LABEL_WORDS.issuperset(words) else self._name(label)

    def annotation(self, annotation: str) -> str:
        """What an instruction does, in words."""
        if _ANNOTATION.fullmatch(annotation):
            return annotation
        found = _GOTO.fullmatch(annotation)
        return f"{found[1]}{self.label(found[2])}" if found else self._name(annotation)

    # ------------------------------------------------------------------------------------------------------ internals

    def _name(self, text: str) -> str:
        return self._text.text(text, is_name=True)

    def _owner(self, name: str | None) -> str:
        return f"{self._name(name)} " if name else ""

    def _hexadecimal(self, digits: str) -> str:
        return f"{self._numbers.ip_set(int(digits, 16)):x}"

    def _set_number(self, found: re.Match[str]) -> str:
        return f"0x{self._hexadecimal(found[1])}"

    def _rule(self, found: re.Match[str]) -> str:
        return f"{found[1]}{self._owner(found[2])}{_TEXT_FORM.sub(self._part, found[3])}"

    def _part(self, found: re.Match[str]) -> str:
        if found["word"] is not None:
            return found[0] if found["word"] in PROTO_WORDS else self._name(found[0])
        if found["number"] is not None:
            return self._text.text(found[0])
        if found["text"] is None:
            return found[0]
        field, text = found["field"] or "", found["text"]
        before = found[0][: -len(text) - 1] if field in PROTO_WORDS or not field else f'{self._name(field)}:"'
        if field in _VERBATIM and re.fullmatch(r"[a-z-]*", text):
            return found[0]
        if field.endswith("_set_ids"):
            return f'{before}{self._text.set_name(text)}"'
        if field == "rule_id":
            return f'{before}{self._text.digest(text)}"'
        return f'{before}{self._name(text)}"'
