"""charrnn.train in a notebook: a progress bar, a figure, and Ctrl-C, which is the stop button."""

import os

import nbclient
import nbformat
import pytest
from helpers import ROOT, TEXT

SETTINGS = (
    "hidden_size=8, batch_size=3, seq_len=7, limit_train_batches=50, valid_size=200,"
    " logger='none', **{'callbacks.samples': None}"
)

STOP = """
import os, signal, threading, time
def stop():
    while not os.path.exists("second/checkpoints/last.ckpt"):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=stop).start()
"""


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    (tmp_path / "book.txt").write_text(TEXT, "utf-8")
    sources = [
        "import charrnn",
        f"run = charrnn.train('book.txt', max_epochs=2, {SETTINGS})",
        "run.plot()",
        f"{STOP}\nrun = charrnn.train('book.txt', folder='second', max_epochs=-1, {SETTINGS})",
        "run.is_interrupted, len(run.model.generate(length=5)), run.validations[0]['window']",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    return nbclient.NotebookClient(
        notebook, timeout=100, kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )  # fmt: skip


def printed(cell, name):
    return "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == name)


@pytest.mark.filterwarnings("ignore")  # of Jupyter's
def test_notebook(client):
    _, first, plot, second, state = client.execute().cells
    assert "100/100 windows" in printed(first, "stderr")
    assert "best validation" in printed(first, "stdout")
    assert [list(o.data)[-1] for o in plot.outputs if "data" in o] == ["image/png"]
    assert "SIGINT: saved after window" in printed(second, "stdout")
    assert state.outputs[0].data["text/plain"] == "(True, 5, 0)"
