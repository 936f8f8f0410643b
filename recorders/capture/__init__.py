"""The capture side: what runs inside an sglang server (standard library, and what sglang itself brings).

Inside the server this folder is loaded by its path as `specdiff_recorders.capture`, so that no specdiff has to be
installed there; `inject/` is what `specdiff record` prepends to PYTHONPATH.
"""
