"""The command line: what is wrong gives one line, exit code 2 and no folder; help; texts."""

import contextlib
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conf_keys import options
from helpers import TEXT, TINY, assert_one_line, listing
from hydra.core.override_parser.types import QuotedString
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from charrnn.cli import overrides
from charrnn.cli.checks import check_pairs
from charrnn.data.files import shell_path
from charrnn.errors import InputError, escape_control

SHORT = ("trainer.max_epochs=1", "trainer.limit_train_batches=3", *TINY)


def test_a_sweep_starts_new_runs(invoke, folder):
    before = listing(folder)
    result = invoke("train", "resume=run", "-m", "trainer.max_epochs=3,4", cwd=folder)
    assert_one_line(result, ["resume=run", "a sweep starts new ones"])
    assert listing(folder) == before


def test_an_output_that_names_no_file(invoke, folder):
    result = invoke("evaluate", "checkpoint=run", "evaluate.output=", cwd=folder)
    assert_one_line(result, ["evaluate.output=", "names no file"])


@pytest.mark.parametrize("name", ["train", "sample", "evaluate"])
def test_help_names_the_commands_that_were_started(name, tmp_path, capfd):
    """Those of the installed program, not the scripts of a checkout."""
    from charrnn.cli.main import main

    main([name, "--help"])
    shown = capfd.readouterr().out
    assert f"charrnn {name} " in shown and "python train.py" not in shown


@pytest.mark.parametrize("name", ["a b", "it's", "x'", 'a"b"', "null", "[a]"])
def test_resume_takes_the_names_that_are_printed(name, tmp_path, monkeypatch):
    import shlex

    from charrnn.cli.arguments import Program, parse
    from charrnn.data.files import relative_path

    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    printed = shlex.quote(relative_path(tmp_path / name))
    with pytest.raises(InputError, match=r"no checkpoint there") as caught:
        parse("train", shlex.split(f"resume={printed}"), Program(), {})
    assert str(caught.value).startswith(f"{tmp_path / name}/")


HOSTILE = [
    "é",
    "it's",
    'a "b"',
    "a,b",
    "a=b",
    "[a]",
    "{a}",
    "a b",
    "1e3",
    "true",
    "a\\b",
    "$x",
    "#a",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_folders_have_the_names_that_are_given(invoke, folder, tmp_path, name):
    """As far as the check that a folder's name is taken, which is the last before training."""
    shutil.copytree(folder / "run", tmp_path / name)
    text = f"data.path={folder / 'good.txt'}"
    result = invoke("train", f"hydra.run.dir={name}", text, *SHORT, cwd=tmp_path)
    assert_one_line(result, [f"hydra.run.dir={tmp_path / name}", "holds a run already"])


def test_a_part_that_is_left_out(invoke, folder):
    before = listing(folder)
    words = {"": ["samples.length: ", "samples=null"], "++": ["callbacks.samples={", "_target_"]}
    for plus, shown in words.items():
        arguments = ("callbacks.samples=null", f"{plus}callbacks.samples.length=5")
        assert_one_line(invoke("train", *arguments, "data.path=good.txt", cwd=folder), shown)
    assert listing(folder) == before


def test_the_folder_of_one_run_is_none_of_a_sweep(invoke, folder):
    before = listing(folder)
    arguments = ("experiment=shakespeare_60min", "data.path=good.txt", "hydra.run.dir=hour")
    result = invoke("train", *arguments, cwd=folder)
    assert_one_line(result, ["hydra.run.dir=hour", "sweep", "hydra.sweep.dir="])
    assert listing(folder) == before


def test_one_size_is_enough(invoke, folder):
    before = listing(folder)
    arguments = ("data.path=good.txt", "model.parameters=3000", "model.hidden_size=8")
    result = invoke("train", *arguments, cwd=folder)
    assert_one_line(result, ["model.parameters=3000", "leave out", "model.hidden_size=8"])
    assert listing(folder) == before


@pytest.mark.parametrize(
    ("size", "budget", "ok"),
    [("8", 300, False), ("8", None, True), ("null", 300, True), (None, 300, True)],
)
def test_a_size_beside_the_budget_of_a_preset(size, budget, ok):
    config = OmegaConf.create({"model": {"hidden_size": 128, "parameters": budget}})
    overrides = ["sweep=shape"] + ([f"model.hidden_size={size}"] if size else [])
    with contextlib.nullcontext() if ok else pytest.raises(InputError, match="leave out"):
        check_pairs(config, overrides)


def test_a_file_that_may_not_be_read(folder):
    """As a user without rights, since root may read everything."""
    file = folder / "secret.txt"
    file.write_text(TEXT)
    file.chmod(0)
    from charrnn.data.corpus import open_corpus
    from charrnn.errors import InputError

    real = open

    def refusing(name, *args, **kwargs):
        if str(name) == str(file):
            raise PermissionError(13, "Permission denied", str(file))
        return real(name, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError) as caught:
        patch.setattr("builtins.open", refusing)
        open_corpus([file])
    file.unlink()
    assert "secret.txt: cannot be read (Permission denied)" in str(caught.value)


RESUME_BAD = {
    "model.hidden_size=9": ["model.hidden_size=9", "resumed", "8"],
    "data.seq_len=9": ["data.seq_len=9", "resumed"],
    "data.unit=byte": ["data.unit=byte", "resumed"],
    "data.batch_size=4": ["data.batch_size=4", "resumed"],
    "seed=7": ["seed=7", "resumed"],
    "data.charset=one.txt": ["the alphabet has changed", "data.charset="],
    "optimizer=adam": ["optimizer", "resumed"],
    "model=gru_resize": ["model", "resumed"],
    "trainer.max_epoch=9": ["trainer.max_epoch", "did you mean trainer.max_epochs?"],
}


@pytest.mark.parametrize("argument", RESUME_BAD)
def test_what_a_resumed_run_keeps(invoke, folder, argument):
    before = listing(folder)
    result = invoke("train", "resume=run", argument, "trainer.max_epochs=5", cwd=folder)
    assert_one_line(result, RESUME_BAD[argument])
    assert listing(folder) == before


def test_resume_with_a_corpus_that_changed(invoke, folder, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT + "more", "utf-8")
    arguments = (f"resume={folder / 'run'}", "data.path=text.txt", "trainer.max_epochs=5")
    result = invoke("train", *arguments, cwd=tmp_path)
    assert_one_line(result, ["corpus has changed", "data.path=FILE"])
    assert listing(tmp_path) == [str(tmp_path / "text.txt")]


BAD_SAMPLE = {
    "run": ["run: settings are KEY=VALUE", "checkpoint=run"],
    "--checkpoint run": ["--checkpoint: no such option", "checkpoint=run"],
    "--length=5": ["--length=5: no such option", "length=5"],
    "checkpoint=nowhere": ["nowhere", "no checkpoint"],
    "checkpoint=folder": ["folder", "no checkpoint"],
    "checkpoint=torn.ckpt": ["torn.ckpt", "another checkpoint"],
    "checkpoint=text.ckpt": ["text.ckpt"],
    "checkpoint=other.ckpt": ["other.ckpt", "another program"],
    "checkpoint=newer.ckpt": ["newer.ckpt", "format 99"],
    "temperature=-1": ["temperature=-1", "at least 0"],
    "temperature=warm": ["temperature=warm", "a number"],
    "top_p=0": ["top_p=0", "above 0"],
    "top_p=1.5": ["top_p=1.5", "at most 1"],
    "top_k=0": ["top_k=0", "at least 1"],
    "length=-1": ["length=-1", "at least 0"],
    "length=2.5": ["length=2.5", "a whole number"],
    "num_samples=0": ["num_samples=0", "at least 1"],
    "seed=-1": ["seed=-1", "at least 0"],
    "unknown=drop": ["unknown=drop", "replace"],
    "prompt=\u2603": ["'\u2603' (U+2603)", "unknown=skip"],
    "temprature=1": ["temprature", "did you mean temperature?"],
    "+extra=1": ["extra", "nothing reads this key"],
}


@pytest.mark.parametrize("argument", BAD_SAMPLE)
def test_bad_settings_of_sample(invoke, folder, argument):
    before = listing(folder)
    result = invoke("sample", *(argument.split() if argument[0] == "-" else [argument]), cwd=folder)
    assert_one_line(result, BAD_SAMPLE[argument])
    assert result.out == ""
    assert listing(folder) == before


def test_a_prompt_scores_nothing(invoke, folder):
    result = invoke("sample", "score=good.txt", "interactive=true", cwd=folder)
    assert_one_line(result, ["interactive=true", "false with score"])


def test_latest_where_there_is_no_run(invoke, tmp_path):
    result = invoke("sample", cwd=tmp_path)
    assert_one_line(result, ["checkpoint=latest", "train.py", "checkpoint=PATH"])
    assert listing(tmp_path) == []


SWEPT = {
    "data.path=a b.txt,é.txt": ["a b.txt", "é.txt"],
    "init_from=null,weights.ckpt": [None, "weights.ckpt"],
    "prompt=it's,'a, b'": ["it's", "a, b"],
}


@pytest.mark.parametrize("argument", SWEPT)
def test_values_of_jobs_are_literal(argument):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(overrides.to_hydra(argument, is_sweep=True))
    values = [v.text if hasattr(v, "text") else v for v in parsed.value().list]
    assert values == SWEPT[argument]


def test_a_key_that_nothing_reads_in_a_sweep(invoke, folder):
    before = listing(folder)
    result = invoke("train", "-m", "data.path=good.txt", "+extra=1", "seed=1,2", cwd=folder)
    assert_one_line(result, ["extra"])
    assert listing(folder) == before


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_texts_reach_the_settings_as_they_are(text):
    """Whatever Hydra's grammar makes of commas, quotes, brackets, backslashes and ${}."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    quoted = text[0] + text[-1] in ("''", '""') and len(text) > 1
    argument = overrides.to_hydra(f"prompt={text}")
    if not quoted and text != "???":  # a missing value, which one line names
        value = OverridesParser.create().parse_override(argument).value()
        assert OmegaConf.create({"prompt": str(value)}).prompt == text


@pytest.mark.parametrize("typed", ["mine", "[mine]", "'mine'", "mine,other.part", "[]", ""])
def test_allowed_packages_need_no_brackets(typed):
    argument = overrides.to_hydra(f"allow_targets={typed}")
    expected = typed if typed[:1] in ("", "[") else f"[{typed}]"
    assert argument == f"allow_targets={expected}"


LISTS = {
    "[a=1, b c.txt,(d)]": ["a=1", "b c.txt", "(d)"],
    """["0_lr=0.1,seed=1",it's, '3,${x}']""": ["0_lr=0.1,seed=1", "it's", "3,${x}"],
    r"""['it\'s',null,7]""": ["it's", "null", "7"],
}


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_paths_hold_names_as_they_are(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    argument = overrides.to_hydra(f"checkpoint={text}")
    value = OverridesParser.create().parse_override(argument).value()
    assert OmegaConf.create({"key": [str(name) for name in value]}).key == LISTS[text]
    for left in ("[]", "[a,,b]", "[[a],b]", "[{a:b}]", r"[a\,b]"):  # to Hydra
        assert overrides.to_hydra(f"data.path={left}") == f"data.path={left}"


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_escaped_settings_are_no_interpolations(value):
    settings = OmegaConf.create({"key": overrides.escape(value)})
    assert OmegaConf.to_container(settings, resolve=True) == {"key": value}


OTHER_COMMANDS = ("sweep-report", "neurons", "export", "corpus", "benchmarks")


@pytest.mark.parametrize("name", OTHER_COMMANDS)
def test_help_of_commands_with_options(invoke, tmp_path, name):
    result = invoke(name, "--help", cwd=tmp_path)
    assert result.code == 0 and result.out.startswith(f"usage: charrnn {name}")


BAD_OPTIONS = {
    "sweep-report": ["folder", "charrnn sweep-report --help"],
    "sweep-report nowhere": ["nowhere", "no runs there"],
    "neurons": ["checkpoint", "--text"],
    "neurons run": ["--text", "charrnn neurons --help"],
    "neurons run --text good.txt --length 0": ["length=0", "at least 1"],
    "export run": ["--to"],
    "export run --to paper": ["--to", "safetensors"],
    "export nowhere --to torch": ["nowhere", "no checkpoint"],
    "corpus burn": ["list", "clear"],
    "benchmarks guess": ["guess", "training"],
    "corpus list --cache-dir nowhere": ["--cache-dir nowhere", "no such folder"],
    "neurons ~x --text good.txt": ["~x: no checkpoint there"],
    "trian": ["trian", "no such command", "--help"],
}


@pytest.mark.parametrize("name", ["training", "loop", "sampling", "encoding", "scaling"])
def test_help_of_benchmarks(invoke, tmp_path, name):
    result = invoke("benchmarks", name, "--help", cwd=tmp_path)
    assert result.code == 0 and "usage:" in result.out


@pytest.mark.parametrize("line", BAD_OPTIONS)
def test_bad_options(invoke, folder, line):
    before = listing(folder)
    assert_one_line(invoke(*line.split(), cwd=folder), BAD_OPTIONS[line])
    assert listing(folder) == before


def test_an_unexpected_error_says_once_what_to_send(capsys):
    from charrnn.cli.errors import BUG, one_line_errors

    with pytest.raises(ZeroDivisionError), one_line_errors(), one_line_errors():
        print(1 // 0)
    assert capsys.readouterr().err == f"{BUG}\n"


def test_the_list_of_paths_is_complete():
    """As far as a key's name says that it is one."""
    words = "path|dir|file|folder|url|charset|output|checkpoint|resume|init_from"
    paths = re.compile(rf"(.*[._])?({words})")
    known = {key for keys in options().values() for key in keys if paths.fullmatch(key)}
    for key in known:
        assert key in overrides.PATHS or re.fullmatch(overrides.PATHS_OF_ENTRIES, key), key
    for key in ("logger.mlflow.save_dir", "++callbacks.mine.dirpath", "+data.path"):
        assert overrides.to_hydra(f"{key}=it's") == rf"{key}='it\'s'"


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=9)


@given(st.sampled_from(overrides.PATHS), names)
def test_every_key_of_a_path_takes_any_name(key, name):
    """Quotes around a name and, in lists, brackets around it, are the user's; so is ``null``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    in_hydra = key.startswith("hydra.")
    taken = overrides.is_quoted(name) or (name[0] + name[-1] == "[]" and key in overrides.LISTS)
    if taken or name == "null" or (in_hydra and name.startswith("~")):
        return
    value = OverridesParser.create().parse_override(overrides.to_hydra(f"{key}={name}")).value()
    assert OmegaConf.create({"key": str(value)}).key == (name if name != "???" else "./???")


@given(st.sampled_from(sorted({*overrides.PATHS} - {"hydra.sweep.subdir"})), names)
def test_every_key_of_a_path_takes_any_names_of_jobs(key, name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    name = name.replace(",", "").strip()
    taken = overrides.is_quoted(name) or re.match(r"\[|\w+\(.*\)$|['\"]", name)
    if not name or taken or name == "null" or key.startswith("hydra."):
        return
    argument = overrides.to_hydra(f"{key}={name}", is_sweep=True)
    value = OverridesParser.create().parse_override(argument).value()
    assert OmegaConf.create({"key": str(value)}).key == name and isinstance(
        value, str | QuotedString
    )


INTERPOLATED = ["${now:%Y}", "runs/${seed}", "${model.hidden_size}", "a/${hydra.job.name}"]
LITERAL = ["${x}", "a${no.such}b", "${mine:1}", "\\\\${y}"]


@pytest.mark.parametrize("name", [*INTERPOLATED, *LITERAL])
def test_what_is_an_interpolation_in_a_folder(name):
    escaped = overrides.escape_unknown(name)
    assert (escaped == name) == (name in INTERPOLATED)
    if name in LITERAL:
        assert OmegaConf.create({"key": escaped}).key == name


def test_a_folder_that_hydra_would_read_as_an_interpolation(invoke, folder):
    before = listing(folder)
    keys = "hydra.run.dir", "-m hydra.sweep.dir", "-m hydra.sweep.subdir"
    for argument in (f"{key}=a${{x}}" for key in keys):
        arguments = argument.split(), ["seed=1,2"] * argument.startswith("-m")
        result = invoke("train", "data.path=good.txt", *itertools.chain(*arguments), cwd=folder)
        assert_one_line(result, [argument.split("=")[0].split()[-1], "${x}", "name another folder"])
    assert listing(folder) == before


NAMES = [
    "a b",
    "it's",
    "null",
    "-x",
    "~x",
    "[a]",
    "'q'",
    "$HOME",
    "a\x1b'\\c",
    "two\nlines",
    "\udce9",
]


@pytest.mark.parametrize("name", NAMES)
def test_printed_paths_are_read_by_a_shell_as_they_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = shell_path(tmp_path / name)
    assert escape_control(printed) == printed and "\n" not in printed
    shown = subprocess.run(["bash", "-c", f"printf %s {printed}"], capture_output=True, check=True)
    read = os.fsdecode(shown.stdout)
    assert Path(read) == Path(name) and (read == name or read == f"./{name}")
    assert overrides.last_value([f"resume={read}"], "resume") == read
