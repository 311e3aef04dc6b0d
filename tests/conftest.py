"""Keep what tests compile away from the user's cache; kernels that several tests need are compiled once."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    """Compile into a cache that only this run knows."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("kernels")
        patch.setenv("HAWQ_CACHE", str(folder))
        yield folder
