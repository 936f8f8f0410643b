"""The capture side: the code that runs inside an sglang server.

It uses the standard library, and packages that sglang itself installs. The server loads this folder
by its path as `specdiff_recorders.capture`, so specdiff need not be installed there. `specdiff
record` prepends `inject/` to PYTHONPATH.
"""
