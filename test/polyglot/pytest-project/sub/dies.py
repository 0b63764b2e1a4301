"""Not collected unless asked for: it takes pytest with it."""

import os


def test_before():
    pass


def test_dies():
    os._exit(7)


def test_after():
    pass
