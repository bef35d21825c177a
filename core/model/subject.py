"""Which packets are meant, when they are watched or captured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calico_debug.errors import UsageError


@dataclass(frozen=True, slots=True)
class Subject:
    """As typed: a flow with both ends, a pod, or the endpoints of a policy; "" or None where nothing was said.

    With ``drops`` only packets that are dropped, and without anything else all of these. ``namespace`` completes names.
    """

    source: str = ""
    destination: str = ""
    protocol: str | None = None
    via: str | None = None
    pod: str = ""
    policy: str = ""
    drops: bool = False
    namespace: str | None = None

    @property
    def is_flow(self) -> bool:
        """Whether one flow is meant."""
        return bool(self.source)

    @property
    def document(self) -> Mapping[str, str | bool]:
        """What was said, as JSON has it."""
        return {key: value for name, key in KEYS.items() if (value := getattr(self, name))}


KEYS: Mapping[str, str] = {
    "source": "from",
    "destination": "to",
    "protocol": "protocol",
    "via": "via",
    "pod": "pod",
    "policy": "policy",
    "drops": "drops",
    "namespace": "namespace",
}
"""Keys of JSON by the fields of `Subject`."""


def checked(subject: Subject) -> Subject:
    """The subject. Raises `UsageError` when it means nothing, or two things at once."""
    flow = {
        "--from": subject.source,
        "--to": subject.destination,
        "--protocol": subject.protocol,
        "--via": subject.via,
    }
    named = [name for name, value in flow.items() if value]
    others = [f"--{name}" for name in ("pod", "policy") if getattr(subject, name)]
    if len(others) > 1:
        raise UsageError("--pod and --policy contradict each other: leave one of them out")
    if others and named:
        raise UsageError(
            f"{others[0]} and {' and '.join(named)} contradict each other: {others[0]} shows every flow; leave it out "
            "to watch one"
        )
    if subject.drops and named:
        raise UsageError(
            f"--drops and {' and '.join(named)} contradict each other: --drops shows the drops of every flow; leave it "
            "out to watch one, whose drops are shown, too"
        )
    if others or subject.drops:
        return subject
    if missing := [name for name in ("--from", "--to") if not flow[name]]:
        raise UsageError(
            f"{' and '.join(missing)} missing: name both ends of the flow with --from and --to, a pod with --pod, a "
            "policy with --policy, or watch every drop with --drops; see --help for examples"
        )
    return subject
