"""Certificates from files and of the agent's own, shown to a client that verifies them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from calico_debug.agent import certificate as module
from calico_debug.agent.certificate import FileCertificate, OwnCertificate
from calico_debug.errors import EvidenceError
from tests.agent.pki import Authority

if TYPE_CHECKING:
    from calico_debug.agent.certificate import Certificate

DESCRIPTORS = Path("/proc/self/fd")


def shown(made: Certificate, client: ssl.SSLContext, host: str = "127.0.0.1") -> bytes:
    """Shake hands in memory; the certificate that the client saw. Raises `ssl.SSLError`."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = made.context().wrap_bio(to_server, to_client, server_side=True)
    mine = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(10):
        for side in (mine, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = mine.getpeercert(binary_form=True)
    assert found is not None
    return found


def trusting(pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=pem)
    # What newer versions of Python check of their own accord.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT
    return context


def test_an_own_certificate_is_for_its_names_and_no_authority() -> None:
    own = OwnCertificate(["node1", "127.0.0.1", "fd00::7"])
    context = trusting(own.pem())
    for host in ("node1", "127.0.0.1", "fd00::7"):
        assert shown(own, context, host) == ssl.PEM_cert_to_DER_cert(own.pem())
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(own, context, "127.0.0.2")
    with pytest.raises(ssl.SSLCertVerificationError):
        shown(own, trusting(OwnCertificate(["127.0.0.1"]).pem()))
    read = x509.load_pem_x509_certificate(own.pem().encode())
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    left = read.not_valid_after_utc - datetime.now(UTC)
    assert module.VALID - timedelta(minutes=5) < left <= module.VALID


def test_an_own_certificate_is_renewed_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnCertificate(["127.0.0.1"])
    before = own.pem()
    assert own.pem() == before
    monkeypatch.setattr(own, "_renewed", own._renewed - module.VALID.total_seconds() / 2)
    assert own.pem() != before
    shown(own, trusting(own.pem()))


def test_nothing_of_the_key_is_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = {path.name for path in DESCRIPTORS.iterdir()}
    own = OwnCertificate(["127.0.0.1"])
    assert {path.name for path in DESCRIPTORS.iterdir()} == before
    assert list(tmp_path.iterdir()) == []
    assert "PRIVATE" not in own.pem()


def test_files_are_read_again_when_they_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("agent", "127.0.0.1")
    made = FileCertificate(pair.certificate, pair.key)
    context = trusting(Path(authority.path).read_text())
    first = shown(made, context)
    assert shown(made, context) == first
    authority.sign("agent", "127.0.0.1", into=pair)
    second = shown(made, context)
    assert second != first
    assert ssl.PEM_cert_to_DER_cert(made.pem()) == second


def test_while_files_do_not_fit_the_previous_ones_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("agent", "127.0.0.1")
    made = FileCertificate(pair.certificate, pair.key)
    context = trusting(Path(authority.path).read_text())
    first = shown(made, context)
    other = authority.sign("other", "127.0.0.1")
    Path(pair.certificate).write_bytes(Path(other.certificate).read_bytes())
    assert shown(made, context) == first
    assert "the certificate that was read before is used" in caplog.text
    Path(pair.certificate).unlink()
    assert shown(made, context) == first
    Path(pair.certificate).write_bytes(Path(other.certificate).read_bytes())
    Path(pair.key).write_bytes(Path(other.key).read_bytes())
    assert shown(made, context) != first


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"])
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    pair = Authority(tmp_path).sign("agent", "127.0.0.1")
    for path in (pair.certificate, pair.key):
        kept = Path(path).read_bytes()
        Path(path).write_bytes(content)
        with pytest.raises(EvidenceError, match="no certificate with its key") as caught:
            FileCertificate(pair.certificate, pair.key)
        assert "\n" not in str(caught.value)
        Path(path).write_bytes(kept)
    with pytest.raises(EvidenceError, match=r"cannot read .*/none: No such file"):
        FileCertificate(pair.certificate, str(tmp_path / "none"))


def test_a_key_with_a_passphrase_is_an_error_and_no_question(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = Authority(tmp_path).sign("agent", "127.0.0.1")
    key = serialization.load_pem_private_key(Path(pair.key).read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    Path(pair.key).write_bytes(pem)
    with pytest.raises(EvidenceError, match="without a passphrase"):
        FileCertificate(pair.certificate, pair.key)
