"""The post-training methods, each in a file of its own."""

from hawq.ptq.methods import rules  # noqa: F401  # they register themselves
