"""A package, not a namespace: pyRAPL installs a top-level `tests` that would hide `tests.doubles`."""
