"""A certificate authority for the tests, made anew in each run."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and of its private key."""

    certificate: str
    key: str


class Authority:
    """Signs certificates, and writes them and its own into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
        self.certificate = self._write(f"{name}.crt", self._sign(builder))

    def issue(self, name: str) -> Pair:
        """A certificate for loopback, good for a server and for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        loopback = [ipaddress.ip_address(text) for text in ("127.0.0.1", "::1")]
        names = [x509.DNSName("localhost"), *map(x509.IPAddress, loopback)]
        builder = self._builder(subject, key).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(
            self._write(f"{name}.crt", self._sign(builder)),
            self._write(f"{name}.key", pem),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        day = datetime.timedelta(days=1)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(
            self._key.public_key()
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(issuer, critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
                critical=False,
            )
        )

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def _write(self, name: str, pem: bytes) -> str:
        path = self._directory / name
        path.write_bytes(pem)
        return str(path)


class Certificates:
    """What a TLS server and its clients need, and what they must refuse."""

    def __init__(self, directory: Path) -> None:
        authority = Authority(directory, "authority")
        stranger = Authority(directory, "stranger")
        self.ca = authority.certificate
        self.server = authority.issue("server")
        self.client = authority.issue("client")
        self.wrong_ca = stranger.certificate
        self.wrong_client = stranger.issue("wrong-client")

    def client_arguments(self) -> dict[str, Any]:
        """redis-py's arguments of a client that shows its certificate."""
        return {
            "ssl": True,
            "ssl_ca_certs": self.ca,
            "ssl_certfile": self.client.certificate,
            "ssl_keyfile": self.client.key,
        }

    def server_context(self, *, client_certificates: bool = False) -> ssl.SSLContext:
        """The server's side, for a server that is written in Python."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca)
        context.load_cert_chain(self.server.certificate, self.server.key)
        if client_certificates:
            context.verify_mode = ssl.CERT_REQUIRED
        return context
