"""Logits become text: sampler, filters, beam search, sessions."""
