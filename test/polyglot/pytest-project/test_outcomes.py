"""Tests that end in every way in which tests of pytest can end."""

import sys
import unittest

import pytest


def test_pass(record_property):
    print("to standard output")
    print("to standard error", file=sys.stderr)
    record_property("owner", "team a")


def test_fail():
    assert [1, 2] == [1, 3], "lists differ"


@pytest.mark.slow
@pytest.mark.db("orders")
class TestClass:
    class TestInner:
        @pytest.mark.parametrize("a,b", [(1, "x::y"), (2, "[z]"), (3, "")])
        def test_parameters(self, a, b):
            assert a != 2


def test_setup(bad_setup):
    pass


def test_teardown(bad_teardown):
    pass


def test_call_and_teardown(bad_teardown):
    assert 0


@pytest.mark.skip(reason="not today")
def test_skip():
    pass


def test_skip_inside():
    pytest.skip("inside")


@pytest.mark.xfail(reason="known")
def test_xfail():
    assert 0


@pytest.mark.xfail(reason="not run", run=False)
def test_xfail_not_run():
    assert 0


@pytest.mark.xfail(reason="fixed since")
def test_xpass():
    pass


@pytest.mark.xfail(strict=True, reason="strictly")
def test_xpass_strict():
    pass


def test_parts(subtests):
    for i in range(3):
        with subtests.test("part", i=i):
            assert i != 1
    for _ in range(2):
        with subtests.test():
            pass


class TestUnit(unittest.TestCase):
    def test_parts(self):
        with self.subTest(i=1):
            pass
        with self.subTest("named", i=2):
            self.fail("no")

    @unittest.expectedFailure
    def test_expected(self):
        self.fail("as expected")

    @unittest.expectedFailure
    def test_unexpected(self):
        pass


@pytest.mark.parametrize("x", [])
def test_without_parameters(x):
    pass


@pytest.mark.parametrize("x", [b"\xff", "é\n", "same", "same", "-k", "../a b"])
def test_odd_parameters(x):
    pass
