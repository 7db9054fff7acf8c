"""The driver that trains all networks: for a search, a confirmation, a test, and the teachers of all three."""
