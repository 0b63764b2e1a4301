"""Not collected unless asked for: one test waits until somebody ends it."""

import time


def test_before():
    pass


def test_waits():
    time.sleep(60)


def test_after():
    pass
