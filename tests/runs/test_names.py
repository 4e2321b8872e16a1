"""Names of jobs: folders, labels, identities, and values without Hydra's quotes."""

import pytest

from charrnn.runs.names import job_folder_name, job_identity, job_label, varied_overrides
from charrnn.runs.records import write_record


def test_label_shows_what_varies():
    overrides = [
        "data.path=a.txt",
        "model=gru_resize",
        "optimizer.lr=0.0017826497",
        "launcher=joblib",
    ]
    assert job_label(overrides, ["data.path"]) == "model=gru_resize,lr=0.001783"
    # Keys that end alike are shown whole, and values are safe in a file name.
    pairs = ["model.size=1", "data.size='../a b'"]
    assert job_label(pairs, []) == "model.size=1,data.size=..-a-b"
    assert job_label(["model._target_=mine.Cell", "seed=1"], []) == "model=mine.Cell,seed=1"


def test_identity_ignores_order_and_launcher():
    assert job_identity(["a=1", "b=2", "launcher=joblib"]) == job_identity(["+b=2", "a=1"])
    assert job_identity(["a=1"]) != job_identity(["a=2"])


def test_folder_of_a_job_is_found_again(tmp_path):
    def name(number, *overrides):
        return job_folder_name(tmp_path, number, list(overrides), [])

    def start(number, *overrides):
        folder = tmp_path / name(number, *overrides)
        folder.mkdir()
        write_record(folder, overrides, "running")
        return folder.name

    assert start(0, "seed=1") == "0_seed=1" and start(1, "seed=2") == "1_seed=2"
    assert name(7, "seed=2") == "1_seed=2"  # whatever its number
    assert name(0, "seed=3") == "2_seed=3"  # the number 0 is taken
    assert name(5, "seed=3") == "5_seed=3"
    assert job_folder_name(tmp_path, 9, ["seed=4"], ["seed"]) == "9"


def test_numbers_are_numbers():
    varied = varied_overrides(["a=1", "b=1e-3", "c=x"], [])
    assert varied == {"a": 1, "b": 0.001, "c": "x"} and type(varied["a"]) is int


@pytest.mark.parametrize(
    ("value", "expected"),
    [("plain.txt", "plain.txt"), ("'a b,c'", "a b,c"), (r"'it\'s'", "it's"), ('"x"', "x"),
     (r"00\:00\:10", "00:00:10"), ("''", "''"), ("'", "'"), ("", ""), (r"'\n\n'", r"\n\n")],
)  # fmt: skip
def test_values_are_shown_without_quotes(value, expected):
    assert varied_overrides([f"data.x={value}"], []) == {"data.x": expected}
