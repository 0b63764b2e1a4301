import no_such_module


def test_never():
    no_such_module.call()
