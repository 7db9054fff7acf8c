"""What both the command line and the Python API can do with a study, one action per module."""
