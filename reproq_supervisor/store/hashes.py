"""The hash of a spec, by which an active run of the same content is found."""

import hashlib


def hash_of(spec: str) -> str:
    """Return the contract's `spec_hash`."""
    return hashlib.sha256(spec.encode()).hexdigest()
