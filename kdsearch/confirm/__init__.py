"""Confirms the likely front: the members and their twins, trained again over folds and seeds."""
