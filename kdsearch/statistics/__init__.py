"""Resampling and intervals; numpy and scipy alone."""
