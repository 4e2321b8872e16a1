"""HTML pages in tests: a text full of markup, and the elements that a parser finds in a page."""

import html.parser

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
