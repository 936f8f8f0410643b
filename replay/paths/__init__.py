"""The accounting paths that are rules: the old books, and the five fixes as toggles on them."""
