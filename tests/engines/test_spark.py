"""The build on Spark, on this machine."""

import pytest

from tests.engines import job_server

pytestmark = pytest.mark.engine
job_server.require("spark")


def test_spark_writes_the_same_bytes(tmp_path):
    case = job_server.make_case(tmp_path)
    flags = ("--runner=SparkRunner", "--spark_master_url=local[2]")
    assert "SparkRunner" in case.run(*flags)
    case.check()
