"""samples.jsonl: appended whole or not at all, rewound, and read whatever a kill left."""

import pytest

from charrnn.callbacks import samples_file
from charrnn.callbacks.samples_file import append_sample, read_samples, rewind_samples


def test_samples_are_appended_and_rewound(tmp_path):
    assert read_samples(tmp_path) == []
    rewind_samples(tmp_path, 3)  # there is none
    texts = ["a\nb\u2028é\ud800", "", "c"]
    for window, text in zip((0, 5, 9), texts):
        append_sample(tmp_path, window, text)
    assert [s["text"] for s in read_samples(tmp_path)] == texts
    with open(tmp_path / "samples.jsonl", "a") as f:
        f.write('{"window": 12, "te')  # a kill
    assert [s["window"] for s in read_samples(tmp_path)] == [0, 5, 9]
    rewind_samples(tmp_path, 5)
    append_sample(tmp_path, 8, "d")
    assert [s["window"] for s in read_samples(tmp_path)] == [0, 5, 8]


def test_a_full_disk_leaves_no_half_line(tmp_path, monkeypatch):
    append_sample(tmp_path, 0, "a")
    before = (tmp_path / "samples.jsonl").read_bytes()

    def full(value):
        (tmp_path / "samples.jsonl").write_bytes(before + b'{"win')
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(samples_file.json, "dumps", full)
    with pytest.raises(OSError, match="No space"):
        append_sample(tmp_path, 1, "b")
    assert (tmp_path / "samples.jsonl").read_bytes() == before
