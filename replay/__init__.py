"""Events become books, books are compared: paths, the columnar engine, ledgers, diffs and their explanation."""
