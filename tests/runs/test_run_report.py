"""report.html: complete, small, escaped, of any run; and in Chromium, along the training."""

import dataclasses
import json
import shutil

import pytest
from browser import CHROMIUM, Browser
from helpers import assert_one_line, metrics
from pages import NASTY, Elements

from charrnn.callbacks.samples_file import append_sample, read_samples
from charrnn.cli import Program
from charrnn.runs import write_record, write_report
from charrnn.runs.page import results_page
from charrnn.runs.run_report import UPLOT, commands, thin


def data_of(file):
    return json.loads(Elements(file.read_text("utf-8")).texts[1])


def test_a_run_has_its_page(trained, tmp_path, invoke):
    """Written at the end of the run; the command writes the same."""
    page = (trained / "report.html").read_bytes()
    assert 60_000 < len(page) < 300_000
    data = data_of(trained / "report.html")
    facts = dict(data["facts"])
    rows = metrics(trained)
    best = min(float(row["val/bpc"]) for row in rows[1:] if row["val/bpc"])
    assert facts["best validation"] == f"{best:.4f} bpc" and facts["windows"] == "40"
    assert data["state"] == "finished" and ["seed", "1"] in data["settings"]
    windows, losses = data["curves"]["train/bpc"]
    assert windows == [int(row["step"]) for row in rows if row["train/bpc"]]
    assert losses == pytest.approx([float(r["train/bpc"]) for r in rows if r["train/bpc"]], 1e-4)
    assert data["samples"] == read_samples(trained) and len(data["samples"]) >= 2
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "report.html").unlink()
    done = invoke("report", "run", cwd=tmp_path)
    assert done.code == 0 and done.out == "run/report.html\n", done
    assert ["go on", "charrnn train resume=run trainer.max_epochs=4"] in data_of(
        folder / "report.html"
    )["commands"]
    (folder / "metrics.csv").unlink()
    assert_one_line(invoke("report", "run", cwd=tmp_path), ["run: no run there"])


def test_runs_of_which_little_is_left(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,val/bpc\n")
    assert data_of(write_report(tmp_path))["facts"] == [["windows", "0"]]
    # Settings and numbers that are none, as of a run that was killed.
    (tmp_path / ".hydra").mkdir()
    for name in ("config.yaml", "about.yaml"):
        (tmp_path / ".hydra" / name).write_text("[torn")
    (tmp_path / "metrics.csv").write_text("step,val/bpc,train/bpc\n0,6.5,\n10,nan,3\n20,5,in")
    data = data_of(write_report(tmp_path))
    assert data["curves"] == {"train/bpc": [[10], [3.0]], "val/bpc": [[0, 20], [6.5, 5.0]]}


def test_commands_are_those_that_a_model_supports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = {"trainer": {"max_epochs": 3}, "model": {"_target_": "charrnn.models.GRUResize"}}
    assert ["a page to send", "charrnn export run --to html"] in commands(tmp_path / "run", config)
    config |= {"model": {"_target_": "mypackage.Cell"}, "allow_targets": ["mypackage", "other"]}
    found = dict(commands(tmp_path / "run", config))
    assert found["go on"] == (
        "charrnn train resume=run trainer.max_epochs=6 'allow_targets=[mypackage,other]'"
    )
    assert "a page to send" not in found and "what its units do" in found
    # A run of python train.py in a checkout, which ends after so many steps.
    config["trainer"]["max_steps"] = 50
    script = dataclasses.asdict(Program.script("train.py"))
    found = dict(commands(tmp_path / "run", config | {"allow_targets": []}, script))
    assert found == {
        "sample from it": "python sample.py checkpoint=run",
        "how good is it": "python train.py mode=evaluate checkpoint=run",
        "go on": "python train.py resume=run trainer.max_steps=100",
        "what its units do": "python -m charrnn neurons run --text FILE",
    }
    found = dict(commands(tmp_path / "run", config, is_done=False))
    assert found["go on"] == "charrnn train resume=run 'allow_targets=[mypackage,other]'"


def test_the_license_of_the_plotting_library_goes_along(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,val/bpc\n")
    license = UPLOT.with_name("uPlot.LICENSE").read_text()
    assert license in write_report(tmp_path).read_text() and license in results_page("a", [], [])


def test_what_is_long_is_thinned_and_what_is_nasty_escaped(tmp_path):
    run = tmp_path / "<b>&'\u202e"
    run.mkdir()
    lines = [f"{i},{6 - i / 2e4:.3f},{6 - i / 2e4}" for i in range(50_000)]
    (run / "metrics.csv").write_text("\n".join(["step,val/bpc,train/bpc", *lines]))
    for window in range(200):
        append_sample(run, window, NASTY + "世" * 3000)
    write_record(run, [], "failed", NASTY.split("\r")[0])
    file = write_report(run)
    assert file.stat().st_size < 300_000
    page, data = Elements(file.read_text("utf-8")), data_of(file)
    assert [tag for tag, _ in page.tags if tag in ("script", "comment", "b", "img")] == [
        "script", "script",
    ]  # fmt: skip
    windows = [sample["window"] for sample in data["samples"]]
    assert len(windows) > 5 and windows[0] == 0 and windows[-1] == 199
    assert len(data["curves"]["val/bpc"][0]) == 1000 and data["name"] == r"<b>&'\u202e"
    assert thin([1, 2, 3, 4, 5], 3) == [1, 3, 5]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; the others check the data")
def test_in_a_browser(trained, tmp_path):
    samples = read_samples(trained)
    browser = Browser(tmp_path)
    try:
        browser("Emulation.setDeviceMetricsOverride", width=1400, height=1000,
                deviceScaleFactor=1, mobile=False)  # fmt: skip
        browser.open(trained / "report.html")

        def shown():
            return browser.evaluate("find('sample').textContent")

        assert shown() == samples[-1]["text"]
        browser.evaluate(
            "find('slider').value = 0, find('slider').dispatchEvent(new Event('input'))"
        )
        assert shown() == samples[0]["text"]
        assert browser.evaluate("find('when').textContent").startswith("window 0, validation")
        # A click on the curves shows the sample nearest to it.
        browser.evaluate("showNearest(39)")
        assert shown() == samples[-1]["text"]
        x, y = browser.evaluate(
            "(() => { const r = loss.plot.over.getBoundingClientRect();"
            " return [r.x + 3, r.y + 30] })()"
        )
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            browser("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        assert shown() == samples[0]["text"]
        browser.evaluate(
            "find('search').value = 'data.batch', find('search').dispatchEvent(new Event('input'))"
        )
        rows = browser.evaluate(
            "[...document.querySelectorAll('#settings tr:not([hidden])')].length"
        )
        assert rows == 1
        assert browser.evaluate("document.querySelectorAll('canvas').length") == 4
        for width in (390, 1000):
            browser("Emulation.setDeviceMetricsOverride", width=width, height=800,
                    deviceScaleFactor=1, mobile=width < 500)  # fmt: skip
            browser.evaluate(
                "new Promise((r) => setTimeout(r, 100))"
            )  # charts follow a frame later
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert not browser.complaints() and len(browser.requests()) <= 2
    finally:
        browser.close()
