"""Read images: each kind of data set is one file that registers itself."""

from hawq.data import cifar, digits, imagefolder, npz, voc  # noqa: F401  # each registers itself
from hawq.data.image_data import ImageData
from hawq.data.preprocessing import Preprocessing
from hawq.data.registry import load_data, names

__all__ = ["ImageData", "Preprocessing", "load_data", "names"]
