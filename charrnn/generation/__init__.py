"""Logits become text: sampler, filters, beam search, sessions."""

from charrnn.generation.beam import beam_search
from charrnn.generation.context import Context, prefill
from charrnn.generation.decoding import Decoding
from charrnn.generation.detokenizer import Detokenizer, encode_prompt
from charrnn.generation.filters import filter_probabilities, ngram_mask, sample_next
from charrnn.generation.generate import check_length, check_seed, generate_texts
from charrnn.generation.sampler import Uniforms, generate_chunks, generate_indices
from charrnn.generation.session import Session

__all__ = [
    "Context",
    "Decoding",
    "Detokenizer",
    "Session",
    "Uniforms",
    "beam_search",
    "check_length",
    "check_seed",
    "encode_prompt",
    "filter_probabilities",
    "generate_chunks",
    "generate_indices",
    "generate_texts",
    "ngram_mask",
    "prefill",
    "sample_next",
]
