"""`aiscache serve`: what it prints works, and Ctrl-C ends it in good order."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from aistore.sdk import Client

from aiscache import AISMapDataset, Cache
from aiscache.origin import Origin
from tests.certificates import Certificates
from tests.cli.program import Running, environment, run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "my files"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("group", [True, False])
def test_the_snippet_works_and_ctrl_c_ends_it(group: bool, files: Path, tmp_path: Path) -> None:
    with Running("serve", files, "--targets", "2", "--fault", "*/a*,status=503,count=1") as server:
        told = server.read_until("Ctrl-C")
        assert "bucket    ais://my-files\n" in told
        if group:
            snippet = told[told.index("from aistore") : told.index("Ctrl-C")]
            done = subprocess.run(
                [sys.executable, "-c", snippet],
                capture_output=True,
                text=True,
                env=environment(AISCACHE_DIR=str(tmp_path / "cache")),
            )
            assert done.stdout == "2 objects, the first is a.txt\n", done.stderr
        assert server.interrupt(group=group) == (0, "")
        assert server.left_behind() == []


def test_over_tls(files: Path, tmp_path: Path, certificates: Certificates) -> None:
    with Running("serve", files, "--tls-cert", certificates.server) as server:
        told = server.read_until("Ctrl-C")
        assert f"set AIS_CLIENT_CA to the certificate of the authority that issued {certificates.server}" in told
        endpoint = told.partition("endpoint")[2].split()[0]
        client = Client(endpoint, ca_cert=certificates.ca)
        with Cache(tmp_path / "cache", capacity="10MB") as cache:
            assert next(iter(AISMapDataset(client.bucket("my-files"), cache=cache))) == ("a.txt", b"a.txt")
        Origin.close_all()
        assert server.interrupt(group=True) == (0, "")


def test_a_port_that_is_taken_is_told_in_one_line(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", files, "--port", str(taken.getsockname()[1]))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("aiscache: error: cannot listen on 127.0.0.1:")
    assert done.stderr.count("\n") == 1
