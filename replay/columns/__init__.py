"""The columnar engine: the rules of `paths` over whole recordings, as segment sums in torch."""
