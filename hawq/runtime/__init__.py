"""Run an exported library where neither torch nor TVM's compiler is installed.

Needs apache-tvm-ffi, numpy, pillow and `libtvm_runtime.so` of the apache-tvm wheel. Of hawq this package imports only
what needs no more than that.
"""

from hawq.runtime.library import Library, open_library

__all__ = ["Library", "open_library"]
