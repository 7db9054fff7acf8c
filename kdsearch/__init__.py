"""kdsearch: from a folder of images and a teacher to a Pareto front of small students."""

__version__ = "0.1.0"
