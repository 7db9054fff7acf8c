"""One driver for everything that trains networks: a search, a confirmation, a test, and the teachers of all three."""
