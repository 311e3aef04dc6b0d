"""The post-training methods, each in a file of its own."""

from hawq.ptq.methods import (  # noqa: F401  # they register themselves
    absorb,
    adaround,
    allocate,
    bias_correction,
    bias_correction_data,
    brecq,
    clip_weights,
    equalize,
    rules,
    simulate,
    simulate_wide,
    upper_limits,
    weight_corrections,
)
