"""The loader in the hands of Lightning and of Accelerate, which make loaders of their own out of it.

Each runs in a process of its own, as a user's script does: they keep state of the process (a group, signal handlers).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aiscache.devserver import DevCluster

COUNT, SIZE = 1024, 1000

SETUP = """
import json, os, sys
import torch
from aistore.sdk import Client
from aiscache import AISMapDataset, Cache, DataLoader, PrefetchSampler

def collate(batch):
    return {"names": [name for name, _ in batch], "mean": torch.tensor([content[0] for _, content in batch]).float()}

endpoint, bucket, path = sys.argv[1:4]
dataset = AISMapDataset(Client(endpoint).bucket(bucket), cache=Cache(path, capacity="50MB"))
torch.manual_seed(7)
loader = DataLoader(
    dataset, batch_size=16, shuffle=True, num_workers=2, collate_fn=collate, prefetch_processes=1, lookahead="9MB"
)

def tell(names, used):
    prefetched = dataset.cache.stats().prefetched_objects
    told = {"names": names, "type": type(used).__module__, "prefetched": prefetched}
    print(json.dumps(told), flush=True)
"""

LIGHTNING = """
from lightning.pytorch import LightningModule, Trainer

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(1, 1), []
    def training_step(self, batch, index):
        self.seen += batch["names"]
        return self.layer(batch["mean"][:, None]).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)

def main():
    ranks = int(sys.argv[4])
    model = Model()
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=True,
    )
    trainer.fit(model, loader)
    used = trainer.train_dataloader
    assert ranks == 1 or type(used.sampler).__name__ == "DistributedSampler"
    assert used.lookahead == "9MB" and used.prefetcher is not None
    tell(model.seen, used)

main()
"""

ACCELERATE = """
from accelerate import Accelerator

accelerator = Accelerator(cpu=True)
prepared = accelerator.prepare(loader)
if sys.argv[4] == "attached":
    assert PrefetchSampler.attach(prepared, processes=1, lookahead="9MB") is prepared
epochs = [[name for batch in prepared for name in batch["names"]] for _ in range(2)]
assert epochs[0] != epochs[1]
tell(epochs[0], prepared)
accelerator.end_training()
"""


def run(program: str, *arguments: str, launcher: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Run a program; return what each of its ranks told."""
    done = subprocess.run(
        [sys.executable, *launcher, program, *arguments], capture_output=True, text=True, timeout=100, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture
def arguments(dev_cluster: DevCluster, bucket_name: str, tmp_path: Path) -> list[str]:
    dev_cluster.generate(bucket_name, COUNT, SIZE)
    dev_cluster.set_delay(0.1)  # so that the pool, which needs a moment to start, has most of the work
    return [dev_cluster.endpoint, bucket_name, str(tmp_path / "cache")]


def names_of(told: list[dict[str, Any]]) -> list[str]:
    return sorted(name for rank in told for name in rank["names"])


@pytest.fixture
def names(dev_cluster: DevCluster, arguments: list[str]) -> list[str]:
    entries = dev_cluster.client().bucket(arguments[1]).list_all_objects()
    return sorted(str(entry.name) for entry in entries)


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_lightning_trains_with_the_pool(
    dev_cluster: DevCluster, arguments: list[str], names: list[str], tmp_path: Path, ranks: int
) -> None:
    program = tmp_path / "train.py"
    program.write_text(SETUP + LIGHTNING)
    dev_cluster.set_delay(0.05)  # the pool's start takes some time, on a busy machine
    dev_cluster.reset_requests()
    told = run(str(program), *arguments, str(ranks))
    assert names_of(told) == names
    assert len(told) == ranks
    assert all(rank["type"] == "aiscache.loader" for rank in told)
    assert told[0]["prefetched"] > 0
    assert dev_cluster.requests()["GET"] == COUNT


@pytest.mark.parametrize(
    ("kind", "ranks"),
    [
        ("attached", 1),
        pytest.param("attached", 2, marks=pytest.mark.slow),
        pytest.param("as it is", 1, marks=pytest.mark.slow),
    ],
)
def test_accelerate_prepares_it(
    dev_cluster: DevCluster, arguments: list[str], names: list[str], tmp_path: Path, kind: str, ranks: int
) -> None:
    program = tmp_path / "train.py"
    program.write_text(SETUP + ACCELERATE)
    dev_cluster.reset_requests()
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}") if ranks > 1 else ()
    told = run(str(program), *arguments, kind, launcher=launcher)
    assert names_of(told) == names
    assert len(told) == ranks
    assert (told[0]["prefetched"] > 0) is (kind == "attached")
    assert dev_cluster.requests()["GET"] == COUNT
