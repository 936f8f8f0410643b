"""Find which release or commit changed the books, by what each computes over one recording."""
