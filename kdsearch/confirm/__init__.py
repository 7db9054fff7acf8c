"""Confirmations: the students likely on the front and their twins, trained again over folds and seeds."""
