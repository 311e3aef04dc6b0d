"""Trace a network into the canonical float graph, and find in it what quantization needs."""
