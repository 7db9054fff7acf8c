"""Resampling and intervals; numpy and scipy only."""
