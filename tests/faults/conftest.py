"""Faults on purpose: a short version with fixed seeds for the ordinary suite, the long one marked `faults`."""

import os

import pytest

SEED = int(os.environ.get("FAULTS_SEED", "0"))


@pytest.fixture(scope="session")
def seed() -> int:
    """Seed of the long versions: 0, or FAULTS_SEED."""
    print(f"FAULTS_SEED={SEED}")
    return SEED
