"""For the programs that test_wrappers.cpp and test_own_vulkan.cpp run."""

import fluxion


def raised(call, kind=fluxion.Error):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")
