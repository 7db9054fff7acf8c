"""One file a verb: what the command line and Python can both do with a study."""
