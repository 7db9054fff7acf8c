"""Reads study files as frozen, validated ``StudyConfig`` objects."""
