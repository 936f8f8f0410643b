"""The lifted engine: accounting functions read out of an sglang source tree and executed against stand-ins."""
