"""From a recording to the smallest part of it that still shows a divergence."""
