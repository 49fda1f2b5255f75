"""Every case of the input benchmark decodes the same images."""

import pytest

from benchmarks import input as benchmark


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return benchmark.make_data(60, tmp_path_factory.mktemp("work"))


def test_each_case_reads_the_training_split(data):
    folder, loose = data
    count = len(list(loose.iterdir()))
    assert 30 < count < 50
    done = {case.name: case.run() for case in benchmark.own_cases(folder, loose, 8)}
    full = count // 8 * 8
    assert done == {
        "trainer, streaming": full,
        "trainer, streaming, again": full,
        "trainer, from memory": full,
        "trainer, evaluation": -(-count // 8) * 8,
        "tf.data": full,
        "image_dataset_from_directory": count,
        "decode only": count,
    }


def test_peers_that_are_not_installed_are_skipped_with_a_word(data, capsys, tmp_path):
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\nexit 1\n")
    empty.chmod(0o755)
    assert list(benchmark.peer_cases(data[1], 8, str(empty))) == []
    assert capsys.readouterr().out.count("skipped ") == 2
    assert list(benchmark.peer_cases(data[1], 8, "")) == []
