"""Compile for NVIDIA GPUs: integer tensor cores, packed 4-bit storage, machine code without a GPU present."""
