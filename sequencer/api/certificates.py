"""Certificates of a cluster: its own authority, and one certificate with a role for each node and each gateway."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sequencer.api.tls import GATEWAY, ROLE_PREFIX, SEQUENCER
from sequencer.wire.option_types import is_host

CA_CERT: Final = "ca.crt"
CA_KEY: Final = "ca.key"
CA_DAYS: Final = 3_650
DAYS: Final = 365
DAYS_MAX: Final = 3_650
SKEW: Final = datetime.timedelta(minutes=5)  # by which clocks of two machines may differ


class CertificateError(Exception):
    """A folder or a name that cannot be used: the message says which and why."""


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs the cluster's certificates. Its key belongs on no machine of the cluster."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str = "fairstrike cluster", days: int = CA_DAYS) -> Authority:
        """A new one, valid for `days` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(name)
        certificate = (
            _builder(subject, subject, key, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """That of `folder`. Raises CertificateError."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA_CERT).read_bytes())
            key = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise CertificateError(f"{folder / CA_KEY}: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise CertificateError(f"{folder / CA_KEY} is not the key of {folder / CA_CERT}")
        return cls(certificate, key)

    def certify(
        self, role: str, name: str, hosts: Sequence[str] = (), days: int = DAYS
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """A certificate of `role` for `name`, reached at `hosts`, and its new key. Nodes also connect to each other, so
        theirs are good for both ends.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(ROLE_PREFIX + role)]
        names += map(_host_name, hosts)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role == SEQUENCER:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            _builder(_subject(name), self.certificate.subject, key, days, self.certificate)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return certificate, key


def write_cluster(
    folder: Path, hosts: Sequence[str], gateways: Sequence[str], days: int = DAYS, renew: bool = False
) -> list[Path]:
    """Writes the authority (unless `folder` has one), a certificate and key for each of `hosts` and `gateways`.

    The paths of the certificates. Raises CertificateError for a name or a file that is there already and is not to be
    renewed; nothing is written then.
    """
    wanted = [(SEQUENCER, host) for host in dict.fromkeys(hosts)]
    wanted += [(GATEWAY, name) for name in dict.fromkeys(gateways)]
    for role, name in wanted:
        if not is_host(name):
            raise CertificateError(f"{name!r}: the name of a {role} must be a host name or an IP address")
    places = [(role, name, folder / f"{role}-{name.replace(':', '_')}.crt") for role, name in wanted]
    there = [str(path) for _, _, path in places if path.exists() or path.with_suffix(".key").exists()]
    if there and not renew:
        raise CertificateError(f"{', '.join(there)}: there already; --renew replaces it")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / CA_CERT).exists() or (folder / CA_KEY).exists():
        authority = Authority.load(folder)
    else:
        authority = Authority.make()
        write_pair(folder / CA_CERT, authority.certificate, authority.key)
    for role, name, path in places:
        certificate, key = authority.certify(role, name, [name] if role == SEQUENCER else [], days)
        write_pair(path, certificate, key)
    return [folder / CA_CERT, *(path for _, _, path in places)]


def write_pair(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Writes a certificate at `path` and its key beside it (`.key`, mode 0600)."""
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _replace(path.with_suffix(".key"), secret, 0o600)
    _replace(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _replace(path: Path, data: bytes, mode: int) -> None:
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    beside.replace(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    under: x509.Certificate | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=days)
    if under is not None:
        until = min(until, under.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if _is_ip(host) else x509.DNSName(host)
