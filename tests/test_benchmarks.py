"""The benchmarks' own promises: wrong bytes are found out, and a page can be made again of the figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aiscache.devserver import DevCluster

if TYPE_CHECKING:
    from benchmarks.bench import Bench

TOOLS = Path(__file__).parent.parent / "tools"


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and those that it starts, find the package `benchmarks`."""
    monkeypatch.syspath_prepend(TOOLS)
    monkeypatch.setenv("PYTHONPATH", str(TOOLS))


@pytest.fixture
def bench(dev_cluster: DevCluster, tmp_path: Path) -> Iterator[Bench]:
    from benchmarks.bench import Bench

    bench = Bench(dev_cluster, endpoint=dev_cluster.endpoint, repeats=1, scale=0.001, disk=str(tmp_path))
    yield bench
    bench.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_contender_that_sees_other_bytes_is_out(bench: Bench) -> None:
    from benchmarks.bench import Row
    from benchmarks.workloads import Workload

    data = bench.data(Workload.OBJECTS)
    row = Row("files", "reading.epoch", "files", options={"workers": 0})
    bench.fill([row], data)  # and sees that all is right
    file = min(Path(bench.place(data, row.directory).directory, "files").iterdir())
    content = file.read_bytes()
    for damaged, what in ((bytes([content[0] ^ 1]) + content[1:], "checksum"), (content[:-1], "bytes")):
        file.write_bytes(damaged)
        with pytest.raises(SystemExit, match=f"files saw other {what} than the cluster holds"):
            bench.run(row, data)
    file.write_bytes(content)
    assert bench.run(row, data)["samples/s"] > 0


def test_what_a_job_saw_is_held_against_the_data() -> None:
    from benchmarks.bench import Row, check

    class Data:
        total_bytes, checksum = 10, 7

    figures = {"bytes": 10.0, "checksum": 7.0, "s": 1.0}
    check(Row("right", "job"), figures, Data)  # type: ignore[arg-type]
    assert figures == {"s": 1.0}
    for wrong in ({"bytes": 9.0}, {"checksum": 6.0}, {"bytes": 10.0, "checksum": 8.0}):
        with pytest.raises(SystemExit, match="wrong saw other"):
            check(Row("wrong", "job"), wrong, Data)  # type: ignore[arg-type]


RUNS = {
    "theirs": [{"samples/s": 100.0, "GETs/object": 1.0}, {"samples/s": 120.0, "GETs/object": 1.0}],
    "repacked": [{"samples/s": 220.0, "conversion s": 3.0}, {"samples/s": 220.0, "conversion s": 3.0}],
    "ours": [{"samples/s": 2000.0, "GETs/object": 0.0}, {"samples/s": 2400.0, "GETs/object": 0.5}],
}
MARKDOWN = """\
| | samples/s | GETs/object | conversion s | ratio |
|---|---|---|---|---|
| theirs | 110 (100 to 120) | 1.00 |  | 1.00 |
| repacked | 220 |  | 3.00 | 2.00 |
| ours | 2,200 (2,000 to 2,400) | 0.250 (0.000 to 0.500) |  | 20.0 |"""


def test_a_table_has_medians_with_their_spread_and_ratios_to_the_best_of_the_base() -> None:
    from benchmarks.tables import Table

    assert Table("warm", "Warm epoch", RUNS, figure="samples/s", base=["theirs"]).markdown() == MARKDOWN
    assert Table("warm", "Warm epoch", RUNS, columns=["samples/s"]).markdown().splitlines()[2:] == [
        "| theirs | 110 (100 to 120) |",
        "| repacked | 220 |",
        "| ours | 2,200 (2,000 to 2,400) |",
    ]


def test_a_page_is_made_of_the_files_that_figures_were_written_to(tmp_path: Path) -> None:
    from benchmarks import report
    from benchmarks.environment import environment, told
    from benchmarks.tables import Table

    where = environment() | {"how": "2 repeats"}
    table = Table("warm", "Warm epoch", RUNS, figure="samples/s", base=["theirs"], picture="warm-epoch")
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    report.write(paths[0], [table], where)
    report.write(paths[1], [Table("first", "First batch", {"ours": [{"s": 1.0}]})], where)
    assert report.read(paths[0]) == (where, [table])
    assert report.markdown(paths).split("\n\n") == [
        f"Measured on {told(where)}. 2 repeats",
        "## `./tools/bench --only warm`",
        "Warm epoch:",
        MARKDOWN,
        "## `./tools/bench --only first`",
        "First batch:",
        "| | s |\n|---|---|\n| ours | 1.00 |",
    ]
