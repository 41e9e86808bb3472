"""TLS for the cluster, as AIStore's `net.http.use_https` with `server_crt`, `server_key` and `client_ca_tls`."""

from __future__ import annotations

import ssl

import msgspec

_CERTIFICATE_REASONS = ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED")


class _Telling(ssl.SSLObject):
    """Tells a client that it needs another certificate: asyncio would close the connection before it sent the alert.

    So a handshake that failed asks for more to read once, before it fails: asyncio sends what there is to send then.
    """

    _told = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if self._told or error.reason not in _CERTIFICATE_REASONS:
                raise
            self._told = True
            raise ssl.SSLWantReadError from None


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """The files (PEM) that make all nodes speak TLS.

    Attributes:
        cert: the certificate of every node, with its chain; it must be good for the address that they listen on.
        key: its private key; the default is that `cert` has it too.
        client_ca: if not empty, clients must have a certificate that one of these vouches for.
    """

    cert: str
    key: str = ""
    client_ca: str = ""

    def for_clients(self) -> ssl.SSLContext:
        """What a node talks to clients with, and to other nodes that call it."""
        context = self._with_certificate(ssl.PROTOCOL_TLS_SERVER)
        context.sslobject_class = _Telling
        if self.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.client_ca)
            context.load_verify_locations(self.cert)  # other nodes show theirs
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return context

    def for_nodes(self) -> ssl.SSLContext:
        """What a node calls other nodes with, which it knows by their ports."""
        context = self._with_certificate(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    def _with_certificate(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.load_cert_chain(self.cert, self.key or None)
        return context
