"""`aiscache warm` as people start it: what it prints, its exit codes, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from aiscache.cache import Cache
from aiscache.cli import main
from aiscache.cli.sources import SourceUrl, by_bucket, expanded, source_url
from aiscache.devserver import DevCluster
from aiscache.errors import ConfigError
from tests.cli.program import Running, run, run_in_terminal
from tests.prefetch.processes import pool_processes, wait_until

COUNT, SIZE = 120, 5000


@pytest.fixture
def bucket(dev_cluster: DevCluster, bucket_name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the cluster that AIS_ENDPOINT names."""
    dev_cluster.generate(bucket_name, COUNT, SIZE, prefix="train/", suffix=".jpg", digits=4)
    monkeypatch.setenv("AIS_ENDPOINT", dev_cluster.endpoint)
    for variable in ("RANK", "WORLD_SIZE", "AISCACHE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return bucket_name


def objects_in(path: Path) -> int:
    with Cache(path) as cache:
        store = cache.store()
        assert store is not None
        return store.upkeep.count()


def test_it_tells_what_it_did_and_the_second_run_finds_all(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path
) -> None:
    done = run("warm", f"ais://{bucket}", "--cache", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")  # no bar where there is no terminal
    assert done.stdout.startswith(f"Fetched {COUNT} objects, 600.0 kB, in ")
    assert f"{COUNT} of {COUNT} objects (600.0 kB) are in {tmp_path}." in done.stdout
    dev_cluster.reset_requests()
    again = run("warm", f"ais://{bucket}", "--cache", tmp_path, "--json")
    told = json.loads(again.stdout)
    assert (told["present_objects"], told["fetched_objects"], told["complete"]) == (COUNT, 0, True)
    assert dev_cluster.requests()["GET"] == 0


@pytest.mark.parametrize("columns", [100, 0])  # 0: a container's terminal, which has not been told its size
def test_on_a_terminal_it_shows_a_bar_with_objects_bytes_and_rate(bucket: str, tmp_path: Path, columns: int) -> None:
    code, shown = run_in_terminal("warm", f"ais://{bucket}", "--cache", tmp_path, columns=columns)
    assert code == 0
    assert f"{COUNT} of {COUNT} objects" in shown
    assert "/600k [" in shown
    assert "B/s" in shown
    code, shown = run_in_terminal("warm", f"ais://{bucket}", "--cache", tmp_path / "other", "--no-progress")
    assert code == 0
    assert "B/s," not in shown


@pytest.mark.parametrize("group", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_ctrl_c_ends_it_within_a_second_and_the_next_run_goes_on(
    dev_cluster: DevCluster, bucket: str, tmp_path: Path, group: bool
) -> None:
    dev_cluster.set_delay(0.2)
    with Running("warm", f"ais://{bucket}", "--cache", tmp_path, "--connections", "8", "--processes", "2") as running:
        wait_until(lambda: dev_cluster.requests()["GET"] >= 32)
        began = time.monotonic()
        code, errors = running.interrupt(group=group)
        assert time.monotonic() - began < 1
        assert code == 130
        assert errors == "Interrupted. What was fetched stays; the same command goes on from there.\n"
        assert running.left_behind() == []
    kept = objects_in(tmp_path)
    assert 8 <= kept < COUNT
    dev_cluster.set_delay(0)
    dev_cluster.reset_requests()
    assert run("warm", f"ais://{bucket}", "--cache", tmp_path).returncode == 0
    assert dev_cluster.requests()["GET"] == COUNT - kept


def test_a_pool_that_is_killed_is_done_without(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.set_delay(0.05)
    with Running("warm", f"ais://{bucket}", "--cache", tmp_path, "--connections", "4") as running:
        wait_until(lambda: dev_cluster.requests()["GET"] >= 8)
        os.kill(pool_processes(running.pid)[0], signal.SIGKILL)
        told, errors = running.process.communicate(timeout=60)
        assert running.process.returncode == 0
        assert f"{COUNT} of {COUNT} objects" in told
        assert "the prefetcher ended" in errors
    assert objects_in(tmp_path) == COUNT


def test_failures_are_listed_and_the_exit_code_says_so(dev_cluster: DevCluster, bucket: str, tmp_path: Path) -> None:
    dev_cluster.fault(bucket, "train/0007.jpg", flip_byte_at=10)
    done = run("warm", f"ais://{bucket}/train/000", "--cache", tmp_path)
    assert done.returncode == 1
    assert f"9 of 10 objects (50.0 kB) are in {tmp_path}." in done.stdout
    assert done.stderr.startswith(f"1 object could not be fetched:\n  ais://{bucket}/train/0007.jpg: ")


def test_what_does_not_fit_is_refused_or_told_beforehand(bucket: str, tmp_path: Path) -> None:
    arguments = ("warm", f"ais://{bucket}", "--cache", tmp_path, "--capacity", "400kB")
    refused = run(*arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{COUNT} missing objects need" in refused.stderr
    assert "--partial" in refused.stderr
    dry = run(*arguments, "--dry-run")
    assert dry.returncode == 1
    assert "They do not fit: they need " in dry.stdout
    assert run("warm", f"ais://{bucket}", "--cache", tmp_path, "--dry-run", "--capacity", "9MB").returncode == 0
    assert objects_in(tmp_path) == 0


def test_templates_and_lists_name_objects(bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ranged = ["warm", f"ais://{bucket}/train/", "--template", "{0000..0009}.jpg", "--cache", str(tmp_path)]
    assert main(ranged) == 0
    names = tmp_path / "names"
    names.write_text(f"train/0009.jpg\ntrain/0010.jpg\nais://{bucket}/train/0011.jpg\nais://{bucket}/nope\n\n")
    assert main(["warm", f"ais://{bucket}", "--list-file", str(names), "--cache", str(tmp_path)]) == 1
    assert f"ais://{bucket}/nope: it is not on the cluster" in capsys.readouterr().err
    assert objects_in(tmp_path) == 12


@pytest.mark.parametrize("variables", [{"RANK": "1", "WORLD_SIZE": "4"}, {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}])
def test_a_task_warms_all_or_with_split_its_part(
    variables: dict[str, str], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["warm", f"ais://{bucket}", "--split", "--cache", str(tmp_path)]) == 0
    assert objects_in(tmp_path) == COUNT // 4
    assert main(["warm", f"ais://{bucket}", "--cache", str(tmp_path)]) == 0
    assert objects_in(tmp_path) == COUNT


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Give a SOURCE, as in ais://imagenet"),
        (["imagenet"], "'imagenet' is not a source; write PROVIDER://BUCKET[/PREFIX]"),
        (["ftp://imagenet"], "names no provider of AIStore; there are ais, aws (s3), gcp (gs), azure (az), oci"),
        (["ais://b", "--template", "x"], "write one as in 'shard-{0000..0099}.tar'"),
        (["ais://b", "--template", "{0..1}{"], "cannot be read"),
        (["ais://b", "ais://c", "--template", "{0..1}"], "--template goes with one SOURCE"),
        (["ais://b", "--list-file", "/nope"], "the list /nope cannot be read: No such file or directory"),
        (["ais://b", "--rank", "3"], "--rank and --world-size go together"),
        (["ais://b", "--rank", "3", "--world-size", "3"], "rank 3 must be less than the world size, 3"),
        (["ais://b", "--split"], "neither RANK and WORLD_SIZE nor SLURM_PROCID and SLURM_NTASKS"),
        (["ais://b", "--capacity", "big"], "is not a size"),
        (["ais://b"], "the unnamed cache lasts as long as some process uses it"),
        (["ais://b", "--cache", "/nope"], "which cluster? Give --endpoint URL, or set AIS_ENDPOINT"),
        (["ais://b", "--cache", "/nope", "--endpoint", "host:8080"], "write http://HOST:PORT"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for variable in ("AIS_ENDPOINT", "AISCACHE_DIR", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("aiscache.store.tiers.SHARED_MEMORY", tmp_path)
    assert main(["warm", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_cluster_that_is_not_there_and_a_bucket_that_is_not(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["warm", "ais://nope", "--cache", str(tmp_path)]) == 1
    assert 'The cluster said: bucket "ais://nope" does not exist\n' in capsys.readouterr().err
    assert main(["warm", f"ais://{bucket}/no/such/", "--cache", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"There are no objects in ais://{bucket}/no/such/: check bucket and prefix.\n"
    began = time.monotonic()
    assert main(["warm", f"ais://{bucket}", "--cache", str(tmp_path), "--endpoint", "http://127.0.0.1:9"]) == 1
    assert time.monotonic() - began < 10
    assert "check that the cluster is up" in capsys.readouterr().err


def test_sources_as_people_write_them() -> None:
    assert source_url("s3://data") == SourceUrl("aws", "", "data")
    assert source_url("gs://data/a//b c") == SourceUrl("gcp", "", "data", "a//b c")
    assert source_url("ais://#team/data/x") == SourceUrl("ais", "@#team", "data", "x")
    assert str(source_url("ais://@uuid#team/data/x")) == "ais://@uuid#team/data/x"
    assert expanded("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    one = source_url("ais://data/train/")
    assert by_bucket([one], ["1", "s3://other/2", "1"]) == {
        SourceUrl("ais", "", "data"): ["train/1"],
        SourceUrl("aws", "", "other"): ["2"],
    }
    with pytest.raises(ConfigError, match="in which bucket is '1'"):
        by_bucket([], ["1"])
    with pytest.raises(ConfigError, match="names a bucket"):
        by_bucket([], ["ais://data"])
