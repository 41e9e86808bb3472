"""Certificates for a cluster on 127.0.0.1 and for its clients, made by an authority of the test's own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme

from aiscache.devserver import Tls


class Certificates:
    """PEM files in `folder`; certificates have their keys in the same file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority, stranger = trustme.CA(), trustme.CA()
        self.ca, self.strange_ca = self._path("ca"), self._path("strange-ca")
        self._authority.cert_pem.write_to_path(self.ca)
        stranger.cert_pem.write_to_path(self.strange_ca)
        self.server = self._write("server", self._authority.issue_cert("127.0.0.1"))
        self.client = self._write("client", self._authority.issue_cert("trainer@example.org"))
        self.strange_client = self._write("strange-client", stranger.issue_cert("trainer@example.org"))
        self.client_pair = self._pair("client", self._authority.issue_cert("trainer@example.org"))

    def tls(self, *, wants_clients: bool = False) -> Tls:
        return Tls(cert=self.server, client_ca=self.ca if wants_clients else "")

    def expired(self) -> Tls:
        now = datetime.now(timezone.utc)
        old = {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=2)}
        return Tls(cert=self._write("expired", self._authority.issue_cert("127.0.0.1", **old)))

    def of_another_name(self) -> Tls:
        return Tls(cert=self._write("another-name", self._authority.issue_cert("ais.example.org")))

    def _path(self, name: str) -> str:
        return str(self._folder / f"{name}.pem")

    def _write(self, name: str, made: trustme.LeafCert) -> str:
        made.private_key_and_cert_chain_pem.write_to_path(self._path(name))
        return self._path(name)

    def _pair(self, name: str, made: trustme.LeafCert) -> tuple[str, str]:
        pair = self._path(f"{name}-cert"), self._path(f"{name}-key")
        made.cert_chain_pems[0].write_to_path(pair[0])
        made.private_key_pem.write_to_path(pair[1])
        return pair
