"""Resampling, tests and intervals; needs only numpy and scipy."""
