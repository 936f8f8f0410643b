"""The columnar engine: applies the rules of `paths` to whole recordings, as segment sums in torch."""
