"""The benchmark of busy neighbours, its ways to train inside this process."""

import json

import pytest

from charrnn.benchmarks import report, threads

SIZE = (8, 1, 2)


@pytest.mark.parametrize("way", ["load", "train"])
def test_ways_to_train(way, tmp_path, monkeypatch, capsys):
    def measure(way, count, neighbours, args, folder, at_once=1):
        # Of a run, long enough for three rows of metrics.
        times = threads.child(way, args.size, folder, 1 if way == "train" else 0.1)
        quartiles = report.quartiles(times)
        return {"milliseconds": quartiles, "medians": [quartiles[1]] * at_once}

    monkeypatch.setattr(threads, "measure", measure)
    file = tmp_path / "results.json"
    size = ",".join(map(str, SIZE))
    threads.main(["--way", way, "--threads", "1", "--neighbours", "0", "--size", size,
                  "--json", str(file)])  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == [way, "1"]
    assert len(json.loads(file.read_text("utf-8"))["results"]) == 2
