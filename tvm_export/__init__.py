"""Lower an IntegerProgram to compiled libraries whose integers equal the reference executor's."""
