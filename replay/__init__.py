"""Turn recorded events into books and compare them: paths, the columnar engine, ledgers, diffs, explanations."""
