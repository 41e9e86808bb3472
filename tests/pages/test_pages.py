"""Every Python block of README.md and docs/ runs, over a dev server that has the data which the page speaks of."""

from __future__ import annotations

import gc
import io
import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from aiscache import Cache
from aiscache.devserver import DevCluster
from tests.datasets.shard_files import samples_of, shard, shards
from tests.datasets.test_map_dataset import as_list

from .page import PAGES, ROOT, Page

Run = Callable[[str], dict[str, Any]]


@pytest.fixture
def _forked_workers() -> Iterator[None]:
    """The classes of a page are in no module that a worker could import."""
    method = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(method, force=True)


@pytest.fixture
def page(
    dev_cluster: DevCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _forked_workers: None
) -> Callable[[str], Page]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AISCACHE_DIR", str(tmp_path / "default"))
    places = {"http://ais-proxy:51080": dev_cluster.endpoint, "/mnt/nvme": str(tmp_path)}
    return lambda name: Page(ROOT / name, places)


@pytest.fixture
def run(dev_cluster: DevCluster, page: Callable[[str], Page]) -> Iterator[Run]:
    """Run a page. What it asked of the cluster can be seen there afterwards."""

    names: dict[str, Any] = {"client": dev_cluster.client()}

    def run(name: str) -> dict[str, Any]:
        dev_cluster.reset_requests()
        return page(name).run(names)

    yield run
    for value in names.values():
        cache = value if isinstance(value, Cache) else getattr(value, "cache", None)
        if isinstance(cache, Cache):
            cache.close()
    names.clear()
    gc.collect()  # loaders whose workers persist


def loaded(dataset: Any, **options: Any) -> list[Any]:
    loader: Any = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=as_list, **options)
    return [sample for batch in loader for sample in batch]


def photograph(number: int) -> bytes:
    """A JPEG of one colour, half of them grey."""
    mode, colour = ("RGB", (number, 255 - number, 7)) if number % 2 else ("L", number)
    file = io.BytesIO()
    Image.new(mode, (40 + number, 30), colour).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def objects(dev_cluster: DevCluster) -> dict[str, bytes]:
    made = {f"o{number:03}": os.urandom(100 + 50 * number) for number in range(60)}
    dev_cluster.put_many("objects", made)
    return made


@pytest.fixture
def tars(dev_cluster: DevCluster) -> dict[str, bytes]:
    made = shards(6)
    dev_cluster.put_many("shards", made)
    return made


def test_each_page_with_code_is_run_here() -> None:
    """A page that is added needs a test of its own, so that it has its data."""
    with_code = {name for name in PAGES if Page(ROOT / name, {}).blocks("python")}
    tested = set(re.findall(r"run\(\"([\w/.-]+\.md)\"\)", Path(__file__).read_text()))
    assert tested == with_code


def test_links_of_the_readme_lead_somewhere() -> None:
    """Those of docs/ are checked when the site is built."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert all((ROOT / link).is_file() for link in links)


@pytest.fixture
def imagenet(dev_cluster: DevCluster) -> dict[str, bytes]:
    made = {f"{number:02}.jpg": os.urandom(2000) for number in range(20)}
    dev_cluster.put_many("imagenet", made)
    return made


def test_readme(imagenet: dict[str, bytes], run: Run) -> None:
    names = run("README.md")
    assert Counter(len(view) for _, views in names["loader"] for view in views) == Counter({2000: 20})
    assert torch.equal(names["view"].tensor(), torch.tensor(list(imagenet["00.jpg"]), dtype=torch.uint8))


def test_quickstart(
    dev_cluster: DevCluster, imagenet: dict[str, bytes], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    names = run("docs/index.md")
    assert dev_cluster.requests()["GET"] == len(imagenet)
    assert re.fullmatch(r"\d+% hits\n", capsys.readouterr().out)
    assert bytes(names["view"]) == imagenet["00.jpg"]


def test_command_line(dev_cluster: DevCluster, imagenet: dict[str, bytes], run: Run) -> None:
    names = run("docs/command-line.md")
    assert names["warmed"].complete
    assert dev_cluster.requests()["GET"] == names["warmed"].fetched_objects == len(imagenet)


def test_metrics(imagenet: dict[str, bytes], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("docs/metrics.md")
    assert "epoch 1: 100% hits" in capsys.readouterr().out
    assert (names["metrics"]["cache/hits"], names["metrics"]["cache/misses"]) == (len(imagenet), 0)


@pytest.mark.slow
def test_metrics_in_lightning(imagenet: dict[str, bytes], run: Run, page: Callable[[str], Page]) -> None:
    run("docs/metrics.md")  # leaves its file
    assert page("docs/metrics.md").run_shell("python").endswith("hit ratio of the last epoch: 1.00\n")


def test_sizing(run: Run) -> None:
    assert run("docs/sizing.md")["cache"].settings.capacity_bytes == 200_000_000_000


def test_tuning(imagenet: dict[str, bytes], run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    names = run("docs/tuning.md")
    assert "for data in this process" in capsys.readouterr().out
    found = {name: bytes(view) for names, views in names["loader"] for name, view in zip(names, views, strict=True)}
    assert found == imagenet


def test_offline(dev_cluster: DevCluster, imagenet: dict[str, bytes], run: Run, page: Callable[[str], Page]) -> None:
    names = run("docs/offline.md")
    assert names["samples"] == list(imagenet.items())
    assert (dev_cluster.requests()["LIST"], dev_cluster.requests()["GET"]) == (1, len(imagenet))  # all by warming
    for program in ("aiscache", "AISCACHE_OFFLINE=1"):
        assert "All of 20 objects" in page("docs/offline.md").run_shell(program)
    assert (dev_cluster.requests()["LIST"], dev_cluster.requests()["GET"]) == (2, len(imagenet))


def test_images(dev_cluster: DevCluster, run: Run) -> None:
    made = {f"train/{kind}/{number:02}.jpg": photograph(number) for kind in ("cat", "dog") for number in range(10)}
    dev_cluster.put_many("imagenet", made | {"val/cat/0.jpg": b"not asked for"})
    names = run("docs/images.md")
    dataset = names["dataset"]
    assert dev_cluster.requests()["GET"] == len(made)  # of two shuffled epochs with 2 workers
    assert dataset.classes.tolist() == ["cat", "dog"]
    for (image, label), (name, content) in zip(loaded(dataset), made.items(), strict=True):
        decoded = Image.open(io.BytesIO(content)).convert("RGB").resize((224, 224))
        assert torch.equal(image, torch.from_numpy(np.array(decoded)).permute(2, 0, 1))
        assert dataset.classes[label] == name.split("/")[1]


def test_webdataset_shards(dev_cluster: DevCluster, tars: dict[str, bytes], run: Run) -> None:
    pairs = {
        f"{stream}-{part}.tar": shard({f"{part}{n}.{stream}": f"{stream} {part} {n}".encode() for n in range(5)})
        for stream in ("images", "labels")
        for part in range(2)
    }
    dev_cluster.put_many("pairs", pairs)
    names = run("docs/webdataset.md")
    assert dev_cluster.requests()["GET"] == len(tars) + len(pairs)  # whatever was read how often
    samples = [sample for tar in tars.values() for sample in samples_of(tar)]
    assert loaded(names["dataset"]) == samples
    assert list(names["dataset"]) == samples
    images = [files["jpg"] for _, files in loaded(names["reader"])]
    assert Counter(map(bytes, images)) == Counter(files["jpg"] for _, files in samples)
    expected = [(b"images %d %d" % (part, n), b"labels %d %d" % (part, n)) for part in range(2) for n in range(5)]
    assert sorted(loaded(names["stream"])) == expected


def test_token_arrays(dev_cluster: DevCluster, run: Run) -> None:
    chance = np.random.default_rng(1)
    arrays = [chance.integers(0, 50_000, 128 * (3 + number) + 5, np.uint16) for number in range(9)]
    dev_cluster.put_many("tokens", {f"{number}.bin": array.tobytes() for number, array in enumerate(arrays)})
    names = run("docs/tokens.md")
    assert dev_cluster.requests()["GET"] == len(arrays)  # of two epochs, and of single windows
    whole = [array[: len(array) // 128 * 128].reshape(-1, 128).astype(np.int64) for array in arrays]
    streamed = loaded(names["dataset"])
    assert sorted(map(len, streamed)) == list(range(3, 12))
    assert all(np.array_equal(batch, whole[len(batch) - 3]) for batch in streamed)
    windows = torch.stack(loaded(names["windows"]))
    assert np.array_equal(windows, np.concatenate(whole))
    assert torch.equal(torch.stack([names["windows"][index] for index in range(len(windows))]), windows)
    assert names["batch"].shape == (8, 128)


def test_datasets_of_ones_own(dev_cluster: DevCluster, run: Run) -> None:
    made = {f"{number:02}.json": json.dumps({"number": number, "lines": "a\nb"}, indent=1) for number in range(12)}
    dev_cluster.put_many("documents", {name: text.encode() for name, text in made.items()})
    names = run("docs/subclassing.md")
    assert dev_cluster.requests()["GET"] == len(made)
    assert loaded(names["documents"]) == [(name, json.loads(text)) for name, text in made.items()]
    assert loaded(names["texts"]) == list(made.items())
    assert sorted(loaded(names["lines"])) == sorted(text.splitlines() for text in made.values())


def test_ranks(
    dev_cluster: DevCluster,
    objects: dict[str, bytes],
    tars: dict[str, bytes],
    run: Run,
    page: Callable[[str], Page],
) -> None:
    names = run("docs/ddp.md")
    assert 0 < dev_cluster.requests()["GET"] <= len(tars)
    assert len(names["reader"]) == sum(len(samples_of(tar)) for tar in tars.values()) // 2
    dev_cluster.reset_requests()
    assert page("docs/ddp.md").run_shell("torchrun") == "60 objects fetched of 60, by all ranks in 2 epochs\n"
    assert dev_cluster.requests()["GET"] == len(objects)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata 0.11 under torch 2.13
def test_resuming(objects: dict[str, bytes], run: Run) -> None:
    names = run("docs/resuming.md")
    assert len(names["before"]) == 12
    assert sorted(names["before"] + names["after"]) == list(objects)
    assert names["rest"] == names["whole"][3:]
    assert names["resumed"] == names["batches"][3:]
    assert len(names["batches"]) > 4
    assert names["found"] == names["expected"]
    assert len(names["expected"]) == 15
