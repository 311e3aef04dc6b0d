"""Mixed-precision quantization of CNNs to integer-only programs that match bit for bit on every backend."""

__version__ = "0.1.0"
