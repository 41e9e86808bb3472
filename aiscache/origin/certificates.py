"""What a TLS connection that could not be made asks of the user: which certificate to set, renew or look for."""

from __future__ import annotations

_TRUST = "set AIS_CLIENT_CA or Client(ca_cert=...) to the certificate of the authority that issued the cluster's"
_TRUST_FILE = "check the path in AIS_CLIENT_CA or Client(ca_cert=...)"
_OUT_OF_DATE = "the cluster's certificate must be renewed, or the clock of this machine is wrong"
_OTHER_NAME = "use an endpoint (AIS_ENDPOINT) that the cluster's certificate names"
_CLIENT = (
    "the cluster wants a client certificate that it trusts: set AIS_CRT and AIS_CRT_KEY, or "
    "Client(client_cert=(certificate, key))"
)
_CLIENT_FILE = "check the paths in AIS_CRT and AIS_CRT_KEY, or Client(client_cert=...)"

# By the words of OpenSSL, which libcurl and Python pass on, and by those of libcurl and requests; most special first.
_TABLE = (
    ("trust anchors", _TRUST_FILE),
    ("ca certificate bundle", _TRUST_FILE),
    ("client certificate", _CLIENT_FILE),
    ("private key", _CLIENT_FILE),
    ("tls certificate file", _CLIENT_FILE),
    ("tls key file", _CLIENT_FILE),
    ("pem lib", _CLIENT_FILE),
    ("alert certificate", _CLIENT),  # required, expired, revoked, unknown
    ("alert bad certificate", _CLIENT),
    ("alert unsupported certificate", _CLIENT),
    ("alert unknown ca", _CLIENT),
    ("has expired", _OUT_OF_DATE),
    ("not yet valid", _OUT_OF_DATE),
    ("subject name matches", _OTHER_NAME),
    ("certificate is not valid for", _OTHER_NAME),
    ("certificate verify failed", _TRUST),
    ("verify result", _TRUST),
    ("certificate problem", _TRUST),
)


def certificate_advice(message: str) -> str:
    """Return what to do about a failure that `message` tells of, "" if it is not about a certificate.

    Trying again is of no use where there is advice.
    """
    words = message.lower()
    return next((advice for phrase, advice in _TABLE if phrase in words), "")
