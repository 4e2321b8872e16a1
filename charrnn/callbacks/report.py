"""Report: a page of the run, written when it ends."""

from pytorch_lightning import Callback

from charrnn.errors import check


class Report(Callback):
    """Has report.html written into the run's folder when it ends.

    The command writes it by :func:`charrnn.runs.write_report` when the run's record is complete,
    which is after the callbacks' last hook.

    Args:
        points: of each curve, at most; longer ones are thinned.
        samples: at most, as evenly spaced as there are.
    """

    def __init__(self, points: int = 1000, samples: int = 60):
        check("points", points, points >= 2, "a whole number, at least 2")
        check("samples", samples, samples >= 2, "a whole number, at least 2")
        self.points, self.samples = points, samples
