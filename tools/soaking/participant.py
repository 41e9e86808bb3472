"""A process of the crowd: does what its role does, again and again, until it is told to end or is killed."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import select
import signal
import socket
import warnings
from collections.abc import Callable
from typing import Any, Protocol

from tools.soaking.auditor import Auditor, Filler
from tools.soaking.caretaker import Caretaker
from tools.soaking.job import Job
from tools.soaking.reader import Reader
from tools.soaking.scene import Scene
from tools.soaking.trainer import Trainer
from tools.soaking.witness import Witness


class Role(Protocol):
    def act(self) -> bool | None:
        """Do one thing; True if that was all."""

    def close(self) -> None:
        """Give back all that is held."""


ROLES: dict[str, Callable[[Scene], Role]] = {
    "reader": Reader,
    "trainer": Trainer,
    "caretaker": Caretaker,
    "witness": Witness,
    "auditor": Auditor,
    "filler": Filler,
}


def serve(pipe: socket.socket) -> None:
    """Act until the near end says "end", or is gone; after "pause" hold nothing, until it says "go"."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.WARNING, format=f"%(asctime)s {os.getpid()} %(levelname)s %(message)s")
    warnings.simplefilter("ignore")
    with pipe.makefile("rb", buffering=0) as orders:
        scene = Scene(Job(**json.loads(orders.readline())), pipe)
        role: Role = ROLES[scene.job.role](scene)
        try:
            _obey(orders, pipe, scene, role)
        except (BrokenPipeError, ConnectionResetError):  # the conductor is gone
            return


def _obey(orders: Any, pipe: socket.socket, scene: Scene, role: Role) -> None:
    while True:
        if select.select([pipe], [], [], 0)[0]:
            order = orders.readline()
            if not order:
                return
            with scene.act(order.decode().strip()):
                role.close()
            if order == b"end\n" or not orders.readline():  # paused until the next line
                return
        elif role.act():
            return
