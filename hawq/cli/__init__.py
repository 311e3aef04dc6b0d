"""Turn commands into calls of the packages; the only part of hawq that imports `search` and `tvm_export`."""
