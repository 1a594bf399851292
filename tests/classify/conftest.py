"""A made-up data set that all tests of classification use."""

from pathlib import Path

import pytest

from tests.classify.folders import write_images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))
