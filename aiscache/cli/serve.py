"""`aiscache serve`: serve a directory as a bucket, from a small stand-in for an AIStore cluster."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING

from aiscache.cli.arguments import whole_number

if TYPE_CHECKING:
    from aiscache.devserver import DevCluster

_BUCKET = re.compile(r"[A-Za-z0-9_.-]{2,64}")
_SNIPPET = """\
from aistore.sdk import Client
from aiscache import AISMapDataset

client = Client("{endpoint}")
dataset = AISMapDataset(client.bucket("{bucket}"))
print(len(dataset), "objects, the first is", dataset[0][0])"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell the parser what the command takes."""
    parser.add_argument("directory", metavar="DIR", type=_directory, help="the files to serve, read-only")
    parser.add_argument("--bucket", metavar="NAME", type=_bucket, help="the bucket's name (default: the directory's)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="the proxy's port (default: any free one)")
    parser.add_argument("--targets", metavar="N", type=whole_number(least=1), default=1, help="default: %(default)s")
    parser.add_argument(
        "--fault",
        metavar="SPEC",
        action="append",
        default=[],
        type=_fault,
        help="let requests go wrong, as in 'mybucket/img-*,status=503,count=2' or '*,delay_s=0.2'; may be repeated",
    )

    parser.add_argument("--tls-cert", metavar="FILE", type=_file, help="serve https with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", type=_file, help="its private key (default: in the same file)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from aiscache.devserver import Tls, serve

    tls = Tls(cert=arguments.tls_cert, key=arguments.tls_key or "") if arguments.tls_cert else None
    bucket = arguments.bucket or _bucket_of(arguments.directory)

    def ready(cluster: DevCluster) -> None:
        print(f"Serving {arguments.directory}")
        print(f"endpoint  {cluster.endpoint}")
        print(f"bucket    ais://{bucket}")
        if tls:
            print("trust     set AIS_CLIENT_CA to the certificate of the authority that issued", arguments.tls_cert)
        print("\n" + _SNIPPET.format(endpoint=cluster.endpoint, bucket=bucket) + "\n")
        print("Ctrl-C ends it.", flush=True)

    serve(
        arguments.directory,
        bucket=bucket,
        host=arguments.host,
        port=arguments.port,
        targets=arguments.targets,
        faults=arguments.fault,
        tls=tls,
        on_ready=ready,
    )
    return 0


def _directory(text: str) -> str:
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.isdir(path):
        why = "is not a directory" if os.path.exists(path) else "does not exist"
        raise argparse.ArgumentTypeError(f"{text!r} {why}")
    return path


def _file(text: str) -> str:
    path = os.path.abspath(os.path.expanduser(text))
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(f"{text!r} is not a file")
    return path


def _bucket(text: str) -> str:
    if not _BUCKET.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} must be 2 to 64 letters, digits, dashes, underscores or dots")
    return text


def _bucket_of(directory: str) -> str:
    """Return the directory's name as far as buckets may be called so."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(directory)).strip("-")[:64]
    return name if _BUCKET.fullmatch(name) else "data"


def _port(text: str) -> int:
    port = whole_number(least=0)(text)
    if port > 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port, must be at most 65535")
    return port


def _fault(text: str) -> object:
    from aiscache.devserver import parse_fault

    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
