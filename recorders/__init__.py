"""The recording: its format (schema, journal, HDF5, reader) and the capture side that fills it.

The modules `schema`, `wire`, `journal`, `run` and everything in `capture` import the standard library only at
import time: they also run inside an sglang server that has no specdiff installed.
"""
