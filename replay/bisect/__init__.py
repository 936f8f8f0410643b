"""Which release or commit changed the books, judged by what they compute over one recording."""
