"""The ground floor: where files lie, whole writes, digests, locks."""
