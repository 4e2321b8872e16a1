"""A folder for a hub: what is in it, that it loads, its card, and the upload by a stand-in."""

import json
import math
import re
import types

import pytest
from export_models import saved
from helpers import TEXT, assert_one_line, listing
from pages import NASTY
from small_models import saved_model

import charrnn
from charrnn import GRUEncode, InputError, checkpoint
from charrnn.export import card, export, extra
from charrnn.models import LSTM


def test_a_folder_loads_and_its_card_says_what_it_is(trained, tmp_path, invoke):
    out = export(trained, "folder", tmp_path / "model", bits=8, license="apache-2.0")
    assert sorted(file.name for file in out.iterdir()) == [
        "README.md", "config.json", "index.html", "model.safetensors",
    ]  # fmt: skip
    model, other = charrnn.load(out), charrnn.load(trained)
    assert model.generate("def ", 50, seed=1) == other.generate("def ", 50, seed=1)
    result = invoke("sample", "checkpoint=model", "length=20", "seed=1", cwd=tmp_path)
    assert result.code == 0 and result.out.rstrip("\n") == other.generate("", 20, seed=1).rstrip()
    text = (out / "README.md").read_text("utf-8")
    assert text.startswith("---\nlicense: apache-2.0\nlibrary_name: charrnn\n")
    losses = [loss for windows, loss in other.saved["validations"] if windows]
    assert f"{min(losses):.4f} nats, {min(losses) / math.log(2):.4f} bpc" in text
    assert other.saved["corpus"]["sha256"] in text and "A character-level model of text.txt" in text
    for temperature in (0.5, 0.8, 1.0):
        assert other.generate("", 400, seed=1, temperature=temperature) in text
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["model"]["hidden_size"] == 8
    for file in out.iterdir():
        assert str(trained).encode() not in file.read_bytes()
    export(trained, "folder", out)  # again, over an earlier one
    assert "license: unknown" in (out / "README.md").read_text("utf-8")
    # Never over the model itself, whose card knows what the weights do not.
    with pytest.raises(InputError, match="is the model to export"):
        export(out, "folder", out)


def test_a_model_without_a_page(tmp_path):
    _, _, content = saved_model(LSTM, TEXT)
    checkpoint.save(content, tmp_path / "model.ckpt")
    notes = []
    out = export(tmp_path / "model.ckpt", "folder", tell=notes.append)
    assert out == tmp_path / "model" and "LSTM has no such page" in notes[0]
    assert "index.html" not in (out / "README.md").read_text("utf-8")
    assert type(charrnn.load(out).model) is LSTM


def test_names_and_samples_cannot_break_out_of_the_card(tmp_path, monkeypatch):
    _, _, content = saved_model(GRUEncode, NASTY + "```\n`")
    content["charrnn"]["settings"]["data"] = {"path": f"/home/me/`]{NASTY}\n# x"}
    checkpoint.save(content, tmp_path / "model.ckpt")
    out = export(tmp_path / "model.ckpt", "folder")
    text = (out / "README.md").read_text("utf-8")
    head = text.partition("## Samples")[0]
    assert "<" not in head and "\n# x" not in head and "/home/me" not in text and "\x1b" not in text
    fences = re.findall(r"^(`{3,})text$", text, re.MULTILINE)
    assert len(fences) == 3
    rest = text.partition("## Samples")[2]
    for fence in fences:  # each closes at its own end, with as many backticks
        body = rest.partition(f"{fence}text\n")[2].partition(f"\n{fence}\n")[0]
        assert not re.search(f"`{{{len(fence)},}}", body)
        rest = rest.partition(f"\n{fence}\n")[2]
    assert card.escape_markdown("a*b_c|<i>\n#") == r"a\*b\_c\|&lt;i&gt; \#"


class Hub:
    """Stands in for huggingface_hub."""

    calls = []

    def create_repo(self, name, exist_ok):
        if name == "me/closed":
            raise OSError("401 Client Error\nInvalid token")
        self.calls.append((name, exist_ok))
        return f"https://hub.example/{name}"

    def upload_folder(self, repo_id, folder_path, commit_message):
        self.calls.append((repo_id, folder_path))


def test_pushing(tmp_path, invoke, monkeypatch):
    saved(tmp_path, GRUEncode, "after", "sigmoid")

    def run(*arguments):
        return invoke("export", "model.ckpt", *arguments, cwd=tmp_path)

    imported = extra.importlib.import_module
    stand_in = types.SimpleNamespace(HfApi=Hub)
    monkeypatch.setattr(
        extra.importlib,
        "import_module",
        lambda name: stand_in if name == "huggingface_hub" else imported(name),
    )
    done = run("--to", "folder", "--push", "me/model-1.0", "--out", "m")
    assert done.code == 0 and done.out.endswith("pushed to https://hub.example/me/model-1.0\n")
    assert Hub.calls == [("me/model-1.0", True), ("me/model-1.0", "m")]
    closed = run("--to", "folder", "--push", "me/closed", "--out", "m")
    assert_one_line(closed, ["--push me/closed: OSError: 401", "Invalid token"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.txt").touch()
    before = listing(tmp_path)
    for arguments, words in (
        ("--to html --push me/model", ["--push", "--to folder"]),
        ("--to folder --push model", ["--push=model", "USER/NAME"]),
        ("--to folder --push a/b/c", ["--push=a/b/c", "USER/NAME"]),
        ("--to folder --license MIT!", ["--license=MIT!", "apache-2.0"]),
        ("--to html --license mit", ["license=mit", "to=folder"]),
        ("--to folder --out mine", ["mine: has other files"]),
    ):
        assert_one_line(run(*arguments.split()), words)
    assert listing(tmp_path) == before


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(charrnn.InputError, match=r'pip install "charrnn\[hub\]"'):
        extra.import_extra("huggingface_hub", "hub")
