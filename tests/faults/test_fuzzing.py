"""A fixed sample of the random input of `make faults`."""

import pytest

from tests.faults import fuzzing


@pytest.mark.parametrize("check", fuzzing.PROPERTIES, ids=lambda check: check.__name__)
def test_random_input_gives_a_value_or_an_error_of_ours(check):
    fuzzing.settings(60, derandomize=True)(check)()
