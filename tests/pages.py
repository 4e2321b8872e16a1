"""Pages in tests: a text full of markup, the elements of an HTML page, the walkthrough's blocks."""

import html.parser
import re

from helpers import ROOT

NASTY = (
    '</script><script>alert(1)</script><!--<b>\u2028\u2029\x00\x1b[2J\u202e"{{data}}&amp;\ud800\r\n'
)


class Elements(html.parser.HTMLParser):
    """The elements of a page, and the text of each script and of the title."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.now = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.now = tag

    def handle_data(self, text):
        if self.now in ("script", "title"):
            self.texts.append(text)
            self.now = None

    def handle_comment(self, text):
        self.tags.append(("comment", text))


def walkthrough_blocks() -> list[tuple[str, str]]:
    """The language and the text of each block of the walkthrough in charrnn/models/README.md."""
    page = (ROOT / "charrnn" / "models" / "README.md").read_text("utf-8")
    walkthrough = page.partition("## Walkthrough")[2].partition("\n## ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```$", walkthrough, re.DOTALL | re.MULTILINE)
