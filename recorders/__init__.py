"""The recording format (schema, journal, HDF5, reader) and the capture side that writes it.

At import time, `schema`, `wire`, `journal`, `run` and everything in `capture` import only the
standard library, because they also run inside an sglang server that has no specdiff installed.
"""
