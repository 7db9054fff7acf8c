"""The lowest layer: locations of files, atomic writes, digests and locks."""
