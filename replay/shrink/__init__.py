"""Shrink a recording to the smallest part that still shows a divergence or a breach of a law."""
