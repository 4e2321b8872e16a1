"""Documents are independent: a model resets its state where one starts."""

import numpy as np
import pytest
import torch

from charrnn import Charset, GRUEncode, GRUResize
from charrnn.data.charset import BOUNDARY
from charrnn.evaluation.static import score


@pytest.mark.parametrize("kind", [GRUEncode, GRUResize])
def test_documents_are_independent(kind):
    """In one text and in the rows of a batch they score as they do by themselves."""
    torch.manual_seed(0)
    charset = Charset("abc", documents=True)
    model = kind(len(charset), 7, 2).double().eval()
    model.boundary = charset.boundary
    texts = [BOUNDARY + text for text in ("abcabc", "c", "bbacbbbacbabc")]
    together = score(model, torch.from_numpy(charset.encode("".join(texts)).astype(int)), 4)
    starts = np.cumsum([len(text) for text in texts])[:-1] - 1
    separate = [score(model, torch.from_numpy(charset.encode(text).astype(int))) for text in texts]
    np.testing.assert_allclose(np.delete(together, starts), np.concatenate(separate), atol=1e-12)
    rows = np.stack([charset.encode((text * 10)[:20]).astype(int) for text in texts])
    rows = torch.from_numpy(rows)
    state = torch.randn(2, 3, 7).double()
    together, _ = model(rows.t(), state)
    for row in range(3):
        outputs, _ = model(rows[row][:, None], state[:, row : row + 1] * 0)
        torch.testing.assert_close(together[:, row], outputs[:, 0], rtol=0, atol=1e-12)
    assert model.activations(rows.t(), state).equal(model.activations(rows.t(), state * 0))
