"""Where the agent listens: what was typed or is in the environment, checked before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from calico_debug.agent.reviews import AUDIENCE
from calico_debug.errors import UsageError

OFF = "off"
"""Value that closes a listener which would be open otherwise."""

DEFAULT_SOCKET = "/run/calico-debug/agent.sock"
DEFAULT_METRICS = "127.0.0.1:9097"
DEFAULT_CAPTURES = "/var/lib/calico-debug/captures"

VARIABLES: Mapping[str, str] = {
    "socket": "CALICO_DEBUG_SOCKET",
    "listen": "CALICO_DEBUG_LISTEN",
    "metrics": "CALICO_DEBUG_METRICS",
    "metrics_pods": "CALICO_DEBUG_METRICS_PODS",
    "captures": "CALICO_DEBUG_CAPTURES",
    "metrics_auth": "CALICO_DEBUG_METRICS_AUTH",
    "tls_cert": "CALICO_DEBUG_TLS_CERT",
    "tls_key": "CALICO_DEBUG_TLS_KEY",
    "token_audience": "CALICO_DEBUG_TOKEN_AUDIENCE",
    "insecure_loopback": "CALICO_DEBUG_INSECURE_LOOPBACK",
}
"""Settings and the variables that give them when the command line does not; docs/agent.md has the same table."""

TRUE, FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address and a TCP port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this host reaches it."""
        return ip_address(self.host).is_loopback

    @property
    def wildcard(self) -> bool:
        """Whether it stands for every address of the host, so that nobody can ask for it."""
        return ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        """``127.0.0.1:9097`` or ``[::1]:9097``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the agent opens. ``socket`` is a path; "" or None is a listener that stays closed.

    ``metrics_pods`` asks for drops by pod, which costs a series for each pod, direction and reason. ``metrics_auth``
    puts TLS and tokens before the metrics, too. ``tls_cert`` and ``tls_key`` are files, both "" for a certificate
    of the agent's own. ``insecure_loopback`` leaves TLS and tokens away from ``listen``. ``captures`` is the directory
    that captures are kept in, "" for none.
    """

    socket: str = DEFAULT_SOCKET
    listen: Address | None = None
    metrics: Address | None = None
    metrics_pods: bool = False
    metrics_auth: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    token_audience: str = AUDIENCE
    insecure_loopback: bool = False
    captures: str = DEFAULT_CAPTURES

    @property
    def checked(self) -> tuple[Address, ...]:
        """The addresses behind TLS and tokens."""
        listen = None if self.insecure_loopback else self.listen
        return tuple(address for address in (listen, self.metrics if self.metrics_auth else None) if address)


def settings(typed: Mapping[str, str | bool | None], variables: Mapping[str, str]) -> Settings:
    """The settings: what was typed goes before the environment, that before what is usual. Raises `UsageError`.

    ``typed`` has the keys of `VARIABLES`, None where the user was silent.
    """
    given = {key: variables.get(name) if typed.get(key) is None else typed[key] for key, name in VARIABLES.items()}
    socket = _text(given["socket"], DEFAULT_SOCKET)
    listen = _address("--listen", _text(given["listen"], OFF))
    captures = _text(given["captures"], DEFAULT_CAPTURES)
    found = Settings(
        "" if socket == OFF else socket,
        listen,
        _address("--metrics", _text(given["metrics"], DEFAULT_METRICS)),
        metrics_pods=_flag("metrics_pods", given),
        captures="" if captures == OFF else captures,
        metrics_auth=_flag("metrics_auth", given),
        tls_cert=_text(given["tls_cert"], ""),
        tls_key=_text(given["tls_key"], ""),
        token_audience=_text(given["token_audience"], AUDIENCE),
        insecure_loopback=_flag("insecure_loopback", given),
    )
    if found.insecure_loopback and (listen is None or not listen.loopback):
        raise UsageError(
            f"--insecure-loopback leaves TLS and tokens away, so --listen {listen or OFF} must be a loopback address: "
            "listen on 127.0.0.1 or [::1], or leave out --insecure-loopback"
        )
    if bool(found.tls_cert) != bool(found.tls_key):
        raise UsageError("--tls-cert and --tls-key belong together: give both, or neither for a certificate of its own")
    for address in () if found.tls_cert else found.checked:
        if address.wildcard:
            raise UsageError(
                f"{address} is every address of this host, and the agent's own certificate is for one: listen on the "
                "address that peers use, or give --tls-cert and --tls-key"
            )
    if not found.socket and found.listen is None and found.metrics is None:
        raise UsageError("nothing to listen on: leave --socket, --listen or --metrics open")
    return found


def _text(value: str | bool | None, default: str) -> str:
    return value if isinstance(value, str) and value else default


def _flag(name: str, given: Mapping[str, str | bool | None]) -> bool:
    word = str(given[name] or "").lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise UsageError(f"{VARIABLES[name]} is {given[name]!r}: set it to true or false")


def _address(option: str, text: str) -> Address | None:
    """``ADDR:PORT``, ``[ADDR]:PORT``, or None for `OFF`."""
    if text == OFF:
        return None
    host, colon, port = text.rpartition(":")
    try:
        address = ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        # Without brackets, as an address put before a port by a manifest is, the last colon is the port's.
        if not colon or (host.startswith("[") and address.version == 4) or not port.isascii() or not port.isdigit():
            raise ValueError
        number = int(port)
        if number > 65535:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is not ADDR:PORT: write an IP address and a port, such as 127.0.0.1:9097 or "
            f"[::1]:9097, or {OFF}"
        ) from None
    return Address(str(address), number)
