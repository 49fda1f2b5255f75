"""The catalogues through the build; `test_predict.py` has those of the prediction."""

import pytest

from tests.faults import catalogues
from tests.faults.catalogues import in_new_folder


@pytest.mark.parametrize(
    "packed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["folder", "zip"]
)
def test_bad_images_are_listed_and_turned_ones_are_upright(packed):
    assert in_new_folder(catalogues.build_images, packed) == []


def test_hostile_members_of_a_zip_are_listed_and_write_nothing():
    assert in_new_folder(catalogues.build_members) == []


@pytest.mark.parametrize("case", catalogues.ZIPS, ids=lambda case: case.name)
def test_zip_files_that_cannot_be_used_say_why(case):
    assert in_new_folder(catalogues.build_zip, case) == []


@pytest.mark.parametrize("case", catalogues.WRONG, ids=lambda case: case[0])
def test_wrong_annotations_are_named(case):
    assert in_new_folder(catalogues.build_wrong, case) == []
