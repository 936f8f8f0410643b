"""Record, replay and check the accounting of SGLang's speculative decoding v2."""
