"""Not collected unless asked for: one test waits until somebody ends it."""

import os
import time

print("pid", os.getpid(), flush=True)


def test_before():
    pass


def test_waits():
    time.sleep(60)


def test_after():
    pass
