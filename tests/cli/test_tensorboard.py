"""charrnn tensorboard: the runs that it serves, the view that it opens, its end."""

import json
import os
import shutil
import signal
import socket
import urllib.request
import warnings
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from helpers import assert_one_line

from charrnn.cli import tensorboard as ours

with warnings.catch_warnings():  # of a part of TensorBoard
    warnings.simplefilter("ignore", DeprecationWarning)
    import tensorboard.program  # noqa: F401

QUICK = ("--load_fast=false", "--reload_interval=0")  # once, in this process


@pytest.fixture
def here(trained, tmp_path):
    shutil.copytree(trained / "tensorboard", tmp_path / "outputs" / "day" / "a" / "tensorboard")
    return tmp_path


@pytest.fixture
def served(monkeypatch, invoke):
    """A function that serves until ``look(address, links)`` has returned."""
    calls = {}

    def sleep(seconds):
        try:
            calls["look"](calls["url"], calls["links"])
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    def serve(links, given):
        calls["links"], calls["url"] = links, start(links, given)
        return calls["url"]

    def run(*arguments, look, cwd):
        calls["look"] = look
        result = invoke("tensorboard", *arguments, cwd=cwd)
        assert "links" in calls and not calls["links"].exists(), result
        return result

    start = ours.serve
    monkeypatch.setattr(ours, "serve", serve)
    monkeypatch.setattr(ours, "sleep", sleep)
    return run


def test_serves_runs_under_their_names(served, here):
    def look(url, links):
        with urllib.request.urlopen(url) as page:  # which sends on to its view
            assert page.url.startswith(f"{url}?smoothing=0&pinnedCards=")
        assert [*(links / "day" / "a").iterdir()]
        with urllib.request.urlopen(f"{url}data/environment") as answer:
            assert json.load(answer)["data_location"] == str(links)

    before = signal.getsignal(signal.SIGINT)
    result = served(*QUICK, "--samples_per_plugin", "images=3", look=look, cwd=here)
    assert result.code == 0, result
    assert result.out.startswith("1 run at http://localhost:") and result.out.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is before
    result = served("outputs", "--", *QUICK, "--path_prefix=/x", look=look, cwd=here)
    assert result.code == 0 and result.out.endswith("/x/ (Ctrl-C ends this)\n"), result


def test_what_is_wrong(invoke, here):
    def refused(*arguments, words):
        assert_one_line(invoke("tensorboard", *arguments, cwd=here), words)

    (here / "empty").mkdir()
    refused("nowhere", words=["nowhere: no such folder"])
    refused("empty", words=["empty: no event files below it"])
    refused("--frobnicate", words=["--frobnicate", "tensorboard --help shows how"])
    refused(*QUICK, "--port=x", words=["--port", "x"])
    refused(*QUICK, "--logdir_spec=a:b", words=["logdir_spec"])
    refused("--inspect", words=["--inspect", "serves nothing"])
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(*QUICK, f"--port={port}", words=[f"port {port}", "in use"])


def test_a_second_signal_does_not_stop_the_end():
    before, done = signal.getsignal(signal.SIGINT), False
    with pytest.raises(SystemExit), ours.ended_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            done = True
    assert done and signal.getsignal(signal.SIGINT) is before


def test_help_is_short(invoke, here):
    result = invoke("tensorboard", "--help", cwd=here)
    assert result.code == 0 and "--port" in result.out and result.out.count("\n") < 20


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_the_page_reads_its_address(served, here, tmp_path):
    """TensorBoard's page, which is no interface: smoothing, pins and names."""

    def look(url, links):
        browser = Browser(tmp_path)
        try:
            browser("Page.navigate", url=url)
            shown = "(document.querySelector('metrics-main-view') || {}).innerText || ''"
            text = browser.evaluate(
                "(async () => { for (let i = 0; i < 300; i++) {"
                f" const text = {shown}; if (text.includes('Pinned\\n2 cards')) return text;"
                " await new Promise((r) => setTimeout(r, 100)) }"
                f" return {shown} }})()"
            )
            assert "Pinned\n2 cards" in text and "day/a" in browser.evaluate(
                "document.body.innerText"
            )
            smoothing = "document.querySelector('metrics-dashboard-settings input.slider-input')"
            assert browser.evaluate(f"{smoothing}.value") == "0"
        finally:
            browser.close()

    assert served(*QUICK, look=look, cwd=here).code == 0


def test_the_default_folders(monkeypatch, invoke, here):
    found = []
    monkeypatch.setattr("charrnn.runs.event_links.link_events", lambda f, into: found.append(f))
    invoke("tensorboard", cwd=here)
    (here / "multirun").mkdir()
    invoke("tensorboard", cwd=here)
    invoke("tensorboard", "--logdir", "multirun", cwd=here)
    shutil.rmtree(here / "multirun")
    os.rename(here / "outputs", here / "elsewhere")
    invoke("tensorboard", cwd=here)
    names = [["outputs"], ["outputs", "multirun"], ["multirun"], ["."]]
    assert found == [[Path(name) for name in each] for each in names]
