import pytest


@pytest.fixture
def bad_setup():
    raise RuntimeError("no set-up")


@pytest.fixture
def bad_teardown():
    yield
    raise RuntimeError("no tear-down")
