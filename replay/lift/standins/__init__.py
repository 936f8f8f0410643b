"""What lifted code gets instead of sglang's own objects and of torch."""
