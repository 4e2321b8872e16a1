"""A headless Chromium, driven by the DevTools protocol over two pipes, which needs no package."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


def high_pipe() -> list[int]:
    """A pipe whose ends are none of the first ten descriptors."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high


class Browser:
    """One tab. Commands are those of https://chromedevtools.github.io/devtools-protocol/."""

    def __init__(self, folder: Path):
        (read, self.writing), (self.reading, write) = high_pipe(), high_pipe()
        # The protocol's pipes are descriptors 3 and 4 of the browser.
        start = (
            "import os, sys; os.dup2(%d, 3); os.dup2(%d, 4); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self.log = open(folder / "chromium.log", "wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", start % (read, write), CHROMIUM, "--headless", "--no-sandbox",
             "--disable-gpu", "--no-first-run", "--disable-background-networking",
             f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(read, write), stdout=self.log, stderr=self.log,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self.answers = os.fdopen(self.reading, "rb")
        self.number, self.session, self.events, self.rest = 0, None, [], b""
        target = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters) -> dict:
        """Send a command and wait for its answer; events that come meanwhile are kept."""
        self.number += 1
        request = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            request["sessionId"] = self.session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self.writing, data) :]
        while (message := self.message()).get("id") != self.number:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def message(self) -> dict:
        while b"\0" not in self.rest:
            part = self.answers.read1(1 << 16)
            assert part, "the browser has ended"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, fragment: str = "") -> None:
        """Open a file, and wait until it is loaded."""
        self.events.clear()
        self("Page.navigate", url="about:blank")
        self("Page.navigate", url=page.as_uri() + fragment)
        while self.evaluate("document.readyState + location.protocol") != "completefile:":
            pass

    def evaluate(self, expression: str):
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of an element."""
        # What is scrolled to may move once more, when what is beside it is laid out.
        x, y = self.evaluate(
            "(async (e) => { e.scrollIntoView({block: 'center'});"
            " for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);"
            " const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2] })"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key)

    def complaints(self) -> list:
        """Errors of scripts, of the console, and of the page's policy."""
        wrong = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event["method"] in wrong]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the page was opened."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def close(self) -> None:
        self.session = None
        try:
            self("Browser.close")
            self.process.wait(20)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            os.close(self.writing)
            self.answers.close()
            self.log.close()
