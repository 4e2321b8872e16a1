"""Sampling from a model of documents ends with the document."""

import torch

from charrnn import Charset, GRUEncode, generation
from charrnn.data.charset import BOUNDARY
from charrnn.generation.decoding import Decoding


def test_a_sample_ends_with_its_document():
    charset = Charset("ab", documents=True)
    torch.manual_seed(0)
    model = GRUEncode(len(charset), 8, 1).eval()
    model.boundary = charset.boundary
    texts = [
        "".join(parts)
        for parts in zip(*generation.generate_texts(model, charset, "", 200, 5, seed=1))
    ]
    assert all(BOUNDARY not in text and len(text) < 200 for text in texts)
    assert len(set(texts)) > 1
    begun = generation.prefill(model, charset, charset.encode(BOUNDARY))._replace(count=0)
    first = next(generation.generate_chunks(model, charset, begun, 5, 1, Decoding()))
    first = charset.decode(first[0].tolist())
    assert [text[:1] or BOUNDARY for text in texts] == list(first)
