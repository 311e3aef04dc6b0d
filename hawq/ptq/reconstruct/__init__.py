"""Learn how weights round, and where activations clip, so that a part of the network puts out what it did in float."""
