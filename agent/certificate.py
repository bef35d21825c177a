"""The certificate an agent shows: from files that may be replaced, or one of its own that is made at start."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

log = logging.getLogger("calico_debug.agent")

VALID = timedelta(days=365)
"""How long an own certificate is valid; after half of that another one is made."""
BACKDATED = timedelta(hours=1)
"""For peers whose clock is behind."""


class Certificate(Protocol):
    """What is shown to clients, now."""

    def context(self) -> ssl.SSLContext:
        """For a new connection. Raises `EvidenceError`."""

    def pem(self) -> str:
        """The certificate itself, without its chain. Raises `EvidenceError`."""


class FileCertificate:
    """A certificate with its chain and its key in PEM files, read again when they change; implements `Certificate`."""

    def __init__(self, certificate: str, key: str) -> None:
        """Paths of the files. Raises `EvidenceError` when they cannot be used."""
        self._files = (certificate, key)
        self._seen = self._stamp()
        self._context, self._pem = self._load()

    def context(self) -> ssl.SSLContext:
        """See `Certificate`. While new files do not fit each other, what was read before is used."""
        self._refresh()
        return self._context

    def pem(self) -> str:
        """See `Certificate`."""
        self._refresh()
        return self._pem

    def _refresh(self) -> None:
        try:
            seen = self._stamp()
            if seen == self._seen:
                return
            self._context, self._pem = self._load()
        except EvidenceError as error:
            log.warning("%s; the certificate that was read before is used", error)
            return
        self._seen = seen
        log.info("certificate read again from %s", self._files[0])

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        try:
            return tuple((s.st_mtime_ns, s.st_ino, s.st_size) for s in map(os.stat, self._files))
        except OSError as error:
            raise EvidenceError(
                f"cannot read {error.filename}: {error.strerror}; name PEM files with --tls-cert and --tls-key"
            ) from None

    def _load(self) -> tuple[ssl.SSLContext, str]:
        certificate, key = self._files
        try:
            text = Path(certificate).read_text(encoding="ascii")
            return server_context(certificate, key), _first(text)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise EvidenceError(
                f"{certificate} and {key} are no certificate with its key ({reason}): give PEM files that belong "
                "together, the key without a passphrase"
            ) from None


class OwnCertificate:
    """A certificate that signs itself, and a key that never leaves this process; implements `Certificate`.

    Clients learn it from `calico_debug.agent.publication`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """``names`` are those that clients ask for: host names and addresses."""
        self._names = tuple(names)
        self._renewed = time.monotonic()
        self._context, self._pem = make_certificate(self._names)

    def context(self) -> ssl.SSLContext:
        """See `Certificate`."""
        self._refresh()
        return self._context

    def pem(self) -> str:
        """See `Certificate`."""
        self._refresh()
        return self._pem

    def _refresh(self) -> None:
        if time.monotonic() - self._renewed > VALID.total_seconds() / 2:
            self._context, self._pem = make_certificate(self._names)
            self._renewed = time.monotonic()


def server_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.3 alone: no renegotiation, no old ciphers. Raises `OSError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    # Without a passphrase function OpenSSL would ask on the terminal.
    context.load_cert_chain(certificate, key, password=lambda: "")
    return context


def make_certificate(names: Sequence[str]) -> tuple[ssl.SSLContext, str]:
    """A new key with a certificate for it, which signs itself, and its PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "calico-debug agent")])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        (
            *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
            *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
        ),
        False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # It is no authority: whoever trusts it trusts this one agent.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The ssl module reads files alone: one in memory, which nobody else can open.
    descriptor = os.memfd_create("calico-debug", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem + private)
        path = f"/proc/self/fd/{descriptor}"
        return server_context(path, path), pem.decode()
    finally:
        os.close(descriptor)


def _general_name(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _first(text: str) -> str:
    """The first certificate of a PEM file. Raises `ValueError`."""
    start, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    _, _, rest = text.partition(start)
    body, found, _ = rest.partition(end)
    if not found:
        raise ValueError("no certificate")
    return f"{start}{body}{end}\n"
