"""specdiff: flight recorder and court for the books of SGLang's speculative decoding v2."""
