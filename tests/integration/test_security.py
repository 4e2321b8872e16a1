"""Nobody gets in: files run no code, configs name no strange targets, texts stay texts."""

import os
import pickle
import re
import warnings

import pytest
import torch
from helpers import TEXT, TINY, load
from hypothesis import given
from hypothesis import strategies as st

from charrnn.callbacks.loggers import add_text
from charrnn.checkpoint.serialization import save
from charrnn.cli.schema import check_targets
from charrnn.data import cache
from charrnn.data.files import fetch
from charrnn.errors import InputError, escape_control, escape_text

with warnings.catch_warnings():  # of a library that TensorBoard brings
    warnings.simplefilter("ignore", DeprecationWarning)
    from tensorboard.plugin_util import markdown_to_safe_html

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", *TINY)


class Malicious:
    """Would make a folder, were it unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.fixture(params=["torch", "pickle"])
def malicious(request, tmp_path, trained):
    """A run's checkpoint with code in it, the file and the folder that the code would make."""
    file, made = tmp_path / "evil.ckpt", tmp_path / "made"
    saved = load(trained / "checkpoints" / "last.ckpt")
    saved["callbacks"]["evil"] = Malicious(made)
    if request.param == "torch":
        torch.save(saved, file)
    else:
        file.write_bytes(pickle.dumps(saved))
    return file, made


def assert_one_line(result, *words):
    assert result.code == 2 and result.out == "", result
    assert result.err.startswith("error: ") and result.err.count("\n") == 1, result.err
    assert all(word in result.err for word in words), result.err


# Code in files


def test_no_command_runs_the_code_in_a_checkpoint(command, malicious, text_file, tmp_path):
    file, made = malicious
    for arguments in (
        ("train.py", f"resume={file}"),
        ("train.py", f"init_from={file}", f"data.path={text_file}", *SHORT),
        ("sample.py", f"checkpoint={file}"),
    ):
        assert_one_line(command(*arguments, cwd=tmp_path), "evil.ckpt")
        assert not made.exists(), arguments
    assert not (tmp_path / "outputs").exists()


def with_settings(trained, file, change):
    """A checkpoint whose settings somebody changed."""
    saved = load(trained / "checkpoints" / "last.ckpt")
    change(saved["charrnn"]["settings"])
    save(saved, file)
    return file


BAD_SETTINGS = {
    "function": lambda s, made: s["model"].update({"_target_": "os.mkdir", "name": made}),
    "through_torch": lambda s, made: s["scheduler"].update({"_target_": "torch.os.mkdir"}),
    "through_us": lambda s, made: s["scheduler"].update({"_target_": "charrnn.cli.app.os.mkdir"}),
    "nested": lambda s, made: s["callbacks"]["samples"].update(
        {"prompt": {"_target_": "os.mkdir", "_args_": [made]}}
    ),
    "in_a_list": lambda s, made: s["trainer"].update(
        {"plugins": [{"deep": {"_target_": "os.mkdir", "_args_": [made]}}]}
    ),
    "allowed_by_itself": lambda s, made: s.update(
        {"allow_targets": ["os"], "task": {"_target_": "os.mkdir", "path": made}}
    ),
    "hydra": lambda s, made: s.update(
        {"hydra": {"callbacks": {"evil": {"_target_": "os.mkdir", "path": made}}}}
    ),
}


@pytest.mark.parametrize("kind", BAD_SETTINGS)
def test_settings_in_a_checkpoint_run_nothing(command, trained, tmp_path, kind):
    made = tmp_path / "made"
    change = BAD_SETTINGS[kind]
    file = with_settings(trained, tmp_path / "evil.ckpt", lambda s: change(s, str(made)))
    result = command("train.py", f"resume={file}", "trainer.max_epochs=3", cwd=tmp_path)
    assert not made.exists()
    if kind == "hydra":  # Hydra's part comes from this command line only
        assert result.code == 0, result.err
    else:
        assert_one_line(result, "_target_=", "os.mkdir")


def test_a_target_of_another_package_must_be_allowed(command, text_file, tmp_path):
    """And is not even imported before it is."""
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\nfrom torch.optim import SGD\n"
        f"Path({str(tmp_path / 'imported')!r}).touch()\n"
        "class Mine(SGD): pass\n"
    )
    arguments = (f"data.path={text_file}", "optimizer=sgd", "optimizer._target_=mine.Mine", *SHORT)
    result = command("train.py", *arguments, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert_one_line(result, "optimizer._target_=mine.Mine", "allow_targets=[mine]")
    assert not (tmp_path / "imported").exists()
    allowed = ("allow_targets=[mine]", f"hydra.run.dir={tmp_path / 'run'}")
    result = command("train.py", *arguments, *allowed, env={"PYTHONPATH": str(tmp_path)})
    assert result.code == 0, result.err
    # A checkpoint allows nothing: whoever takes the run up says so again.
    again = ("train.py", f"resume={tmp_path / 'run'}", "trainer.max_epochs=2")
    result = command(*again, env={"PYTHONPATH": str(tmp_path)})
    assert_one_line(result, "optimizer._target_=mine.Mine", "allow_targets=[mine]")
    result = command(*again, allowed[0], env={"PYTHONPATH": str(tmp_path)})
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.hub.load",
        "torch.utils.collect_env.run",
        "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
        "torch.nn.functional.relu",  # no class
        "torch.optim.lr_scheduler.types.FunctionType",  # imported there, not defined
        "pytorch_lightning.cli.LightningCLI",
        "charrnn.checkpoint.files.os.system",
        "charrnnx.Model",
        "subprocess.Popen",
    ],
)
def test_targets_that_no_config_may_name(target):
    with pytest.raises(InputError, match=r"scheduler\.x\._target_="):
        check_targets("scheduler", {"x": {"_target_": target}}, [])


def test_hydra_s_own_part_names_no_strange_targets(command, text_file, tmp_path):
    """Hydra makes its callbacks and its sweeper before it calls anything of ours."""
    folder = tmp_path / "theirs" / "data"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(
        "# @package _global_\ndefaults: [/data/text@data]\n"
        f"hydra: {{callbacks: {{x: {{_target_: os.mkdir, path: {tmp_path / 'made'}}}}}}}\n"
    )
    for first in (
        ("--config-dir", folder.parent, "data=evil"),
        ("-m", f"+hydra.sweeper.x={{_target_: os.mkdir, path: {tmp_path / 'made'}}}"),
    ):
        result = command("train.py", *first, f"data.path={text_file}", *SHORT, cwd=tmp_path)
        assert_one_line(result, "hydra.", "._target_=os.mkdir: not of charrnn, hydra")
        assert [f.name for f in tmp_path.iterdir() if f.is_dir()] == ["theirs"]


def test_targets_that_configs_name():
    for target in ("torch.optim.Adam", "charrnn.models.GRUEncode", "pytorch_lightning.Trainer"):
        check_targets("x", {"_target_": target}, [])
    check_targets("x", {"_target_": "collections.abc.Mapping"}, ["collections"])
    with pytest.raises(InputError):
        check_targets("x", {"_target_": "collectionsx.Mapping"}, ["collections"])


# Texts


@given(st.text())
def test_visible_texts_control_nothing(text):
    shown = escape_text(text)
    assert not re.search("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]", shown)
    assert escape_text(shown) == shown
    shown.encode("utf-8")
    if not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text):
        assert shown == text


@given(
    st.text(
        alphabet=st.sampled_from("ab\n\x1b\u061c\u200e\u200f\u2029\u202a\u202e\u2066\u2069\u05d0")
    )
)
def test_names_are_read_in_their_order(name):
    """As "exe.txt" must not be shown for what ends in ".exe"."""
    shown = escape_control(name)
    assert not re.search("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]", shown)
    assert shown == "".join(c if c in "ab\n\u05d0" else repr(c)[1:-1] for c in name)


EVIL = (
    "\x1b]0;title\x07\x1b[2J\x9b31m\r\b\x7f<script>alert(1)</script>\n\n</pre>\n```\n# h\n"
    "[a](javascript:alert(2)) <img src=x onerror=alert(3)>\n\x02klzzwxh:0000\x03\n\n&lt;b&gt;"
)


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory, command):
    """A run on a text of control characters and markup, in a folder named so."""
    folder = tmp_path_factory.mktemp("evil")
    text = folder / "\x1b[31m<script>\n.txt"
    text.write_text(EVIL * 20, "utf-8", newline="")
    result = command(
        "train.py", f"data.path={text}", "data.newlines=keep", *SHORT,
        "hydra.run.dir='run\x1b[31m<b>'",
        f"callbacks.samples.prompt={EVIL[:20]}", "callbacks.samples.temperature=9", cwd=folder,
    )  # fmt: skip
    assert result.code == 0, result.err
    (run,) = folder.glob("run*")
    return text, run, result


def assert_harmless(text):
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text), text


def test_a_terminal_gets_no_control_characters(command, evil_run, tmp_path):
    text, run, result = evil_run
    assert_harmless(result.out + result.err)
    assert "\\x1b" in result.out and "\\x9b" in result.out
    sampled = command("sample.py", f"checkpoint={run}", f"prompt={EVIL}", "seed=1")
    assert sampled.code == 0 and sampled.out.startswith(escape_text(EVIL)), sampled
    assert_harmless(sampled.out)
    several = command("sample.py", f"checkpoint={run}", f"prompt={EVIL}", "num_samples=2")
    assert_harmless(several.out)
    raw = command("sample.py", f"checkpoint={run}", f"prompt={EVIL}", "seed=1", "raw=true")
    assert raw.out.startswith(EVIL) and escape_text(raw.out) == sampled.out
    text.rename(text.with_name("gone"))
    for arguments in (
        ("train.py", f"resume={run}", "trainer.max_epochs=2"),
        ("sample.py", f"checkpoint={run}\x1b[2J"),
        ("sample.py", f"checkpoint={run}", "temperature=\x1b[2J"),
        ("train.py", f"data.path={text}\x1b[2J"),
        ("train.py", "+\x1b[2J=1"),
    ):
        failed = command(*arguments, cwd=tmp_path)
        assert_one_line(failed)
        assert_harmless(failed.err)


def test_a_sweep_and_the_cache_print_no_control_characters(command, evil_run, tmp_path):
    done = command("train.py", "-m", "data.path='\x1b[2J'", *SHORT, cwd=tmp_path)
    assert done.code == 1 and "\\x1b[2J: no such file" in done.err, done.err
    assert "start again" in done.out
    assert_harmless(done.out + done.err)
    listed = "\n".join(cache.list_cache(cache.cache_folder(None)))
    assert "\\x1b[31m<script>" in listed
    assert_harmless(listed)


def test_tensorboard_shows_texts_as_they_are():
    """Through the way that TensorBoard itself goes from a text to the page."""

    class Logger:
        def __init__(self):
            self.experiment, self.texts = self, []

        def add_text(self, name, text, windows):
            self.texts.append(text)

    class Trainer:
        is_global_zero = True
        loggers = [Logger()]

    for text in (EVIL, "\n\n" + EVIL, "a\u2028# b", "`" * 3 + "\n</code></pre><b>x</b>"):
        add_text(Trainer, "sample", text, 0)
        page = markdown_to_safe_html(Trainer.loggers[0].texts[-1])
        tags = re.findall("<[^>]*>", page)
        assert tags == ["<pre>", "<code>", "</code>", "</pre>"], page
        inner = page.partition("<code>")[2].rpartition("</code>")[0]
        for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
            inner = inner.replace(entity, character)
        assert inner.strip("\n") == escape_text(text).expandtabs(4).strip("\n")


# Downloads


@pytest.mark.parametrize(
    ("url", "sha256", "words"),
    [
        ("http://example.org/text", "0" * 64, "must be an https:// address"),
        ("ftp://example.org/text", "0" * 64, "must be an https:// address"),
        ("file:///etc/passwd", "0" * 64, "must be an https:// address"),
        ("https://example.org/text", None, "sha256=null must be"),
        ("https://example.org/text", "0" * 63, "sha256=0+ must be"),
        ("https://example.org/text", "md5:" + "0" * 32, "sha256=md5:0+ must be"),
    ],
)
def test_downloads_are_checked(url, sha256, words, tmp_path):
    with pytest.raises(InputError, match=words):
        fetch(url, sha256, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_of_other_bytes_is_refused(tmp_path, monkeypatch):
    """What arrives is compared, and is kept only where it is the right one."""
    import hashlib

    import pooch

    def download(self, url, output_file, pooch, check_only=False):
        with open(output_file, "wb") as f:
            f.write(TEXT.encode())

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch("https://example.org/text", "0" * 64, tmp_path)
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == []
    right = hashlib.sha256(TEXT.encode()).hexdigest()
    assert fetch("https://example.org/text", right, tmp_path).read_bytes() == TEXT.encode()
