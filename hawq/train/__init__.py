"""Train float networks and quantized ones, evaluate them, and keep checkpoints that survive anything."""
