"""Doors to outside systems: one file each, the only rooms that know an SDK, a socket or a subprocess."""
