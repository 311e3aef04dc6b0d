"""Train a network whose units are quantized, and lower it to an IntegerProgram."""
