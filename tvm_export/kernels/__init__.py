"""Schedules of the op definitions, per target."""
