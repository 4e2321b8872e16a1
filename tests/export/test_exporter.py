"""Errors of an export: one line, and no file."""

import sys

import pytest
from export_models import saved

from charrnn import GRUEncode, InputError
from charrnn.export import export


def test_errors_are_one_line_and_leave_no_file(tmp_path):
    _, _, file = saved(tmp_path, GRUEncode, "after", "sigmoid")
    (tmp_path / "cut.ckpt").write_bytes(file.read_bytes()[:3000])
    good = export(file, "safetensors")
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:-5])
    (tmp_path / "text.safetensors").write_text("no tensors")
    before = sorted(tmp_path.iterdir())
    for arguments, message in (
        ((tmp_path / "nowhere", "onnx"), "nowhere: no checkpoint there"),
        ((tmp_path / "cut.ckpt", "onnx"), r"cut\.ckpt: it is torn"),
        ((tmp_path / "cut.safetensors", "onnx"), r"cut\.safetensors: it is damaged"),
        ((tmp_path / "text.safetensors", "torch"), r"text\.safetensors: it is damaged"),
        ((file, "torch", tmp_path / "no" / "where.pt"), r"where\.pt"),
        ((file, "torch", file), "is the model to export"),
        ((file, "tensorflow"), "to=tensorflow must be safetensors or onnx or torch"),
    ):
        with pytest.raises((InputError, OSError), match=message) as caught:
            export(*arguments)
        assert "\n" not in str(caught.value)
        assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    _, _, file = saved(tmp_path, GRUEncode, "after", "sigmoid")
    for missing in ("onnx", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(InputError, match=r'pip install "charrnn\[export\]"'):
            export(file, missing.partition(".")[0])
    assert [f.name for f in tmp_path.iterdir()] == ["model.ckpt"]
