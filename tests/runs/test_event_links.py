"""Links to the event files of runs, under the names that TensorBoard shows."""

import shutil

import pytest

from charrnn.runs.event_links import link_events


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def event_file(folder, name="events.out.tfevents.1"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(folder.as_posix())
    return folder


def linked(links):
    return {
        link.parent.relative_to(links).as_posix(): link.read_text()
        for link in links.rglob("*.tfevents.*")
    }


def test_runs_are_named_by_their_folders(home):
    links = home / "links"
    links.mkdir()
    runs = [home / "outputs" / "day" / name for name in ("a", "b")]
    runs.append(home / "multirun" / "day" / "time" / "0_lr=0.1, é\u202e'")
    for run in runs:
        event_file(run / "tensorboard")

    def names(*folders):
        assert link_events(folders, links) == len(linked(links))
        return [*linked(links)]

    assert sorted(names(home / "outputs")) == ["day/a", "day/b"]
    assert names(runs[0]) == names(runs[0] / "tensorboard") == ["a"]
    assert sorted(names(*runs[:2])) == ["a", "b"]
    assert sorted(names(home / "outputs", home / "multirun")) == [
        r"multirun/day/time/0_lr=0.1, é\u202e'", "outputs/day/a", "outputs/day/b",
    ]  # fmt: skip
    assert names(home / "nothing") == []


def test_an_escaped_name_may_be_too_long(home):
    (home / "links").mkdir()
    event_file(home / "outputs" / ("é" * 80 + "\x1b" * 80))
    assert link_events([home / "outputs"], home / "links") == 1
    (name,) = linked(home / "links")
    assert name.startswith("é" * 80 + r"\x1b") and len(name.encode()) == 255


def test_what_is_new_and_what_is_gone(home):
    links, outputs = home / "links", home / "outputs"
    links.mkdir()
    event_file(outputs / "a" / "tensorboard")
    assert link_events([outputs], links) == 1
    event_file(outputs / "a" / "tensorboard", "events.out.tfevents.2")  # as of a resumed run
    event_file(outputs / "b" / "tensorboard")
    event_file(outputs / "a" / "checkpoints")
    event_file(outputs / ".hidden")
    assert link_events([outputs], links) == 2
    assert len([*(links / "a").iterdir()]) == 2
    shutil.rmtree(outputs / "a")
    assert link_events([outputs], links) == 1 and [*linked(links)] == ["b"]


def test_its_own_links_are_no_runs(home):
    links = home / "links"
    links.mkdir()
    event_file(home / "a" / "tensorboard")
    assert [link_events([home], links) for _ in range(3)] == [1, 1, 1]
    assert [*linked(links)] == ["a"]


def test_a_run_in_the_folder_of_another(home):
    """Nothing is ever made in the folders of runs."""
    links, outer = home / "links", home / "outer"
    links.mkdir()
    event_file(outer / "tensorboard")
    event_file(outer / "inner" / "tensorboard")
    event_file(outer / "tensorboard" / "part")  # as SummaryWriter.add_scalars writes
    before = sorted(outer.rglob("*"))
    assert link_events([outer], links) == 3
    assert sorted(linked(links)) == ["outer", "outer/inner", "outer/part"]
    assert sorted(outer.rglob("*")) == before
