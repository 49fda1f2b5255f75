"""Every case of the input benchmark decodes the same images."""

import pytest

from benchmarks import input as benchmark
from benchmarks import input_cases
from benchmarks.peers import loaders, writers


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = benchmark.make_data(60, tmp_path_factory.mktemp("work"))
    loose = folder.parent / "loose"
    input_cases.write_loose(folder, loose)
    return folder, loose


def test_each_case_reads_the_training_split(data):
    folder, loose = data
    count = len(list(loose.iterdir()))
    assert 30 < count < 50
    done = {}
    for case in input_cases.own_cases(folder, loose, 8):
        result = case.run()
        done[case.name] = getattr(result, "units", result)
    full = count // 8 * 8
    expected = {
        "trainer, streaming": full,
        "trainer, streaming, again": full,
        "trainer, from memory": full,
        "trainer, evaluation": count,
        "tf.data, loose files": full,
        "image_dataset_from_directory": count,
        "decode only": count,
    }
    assert done == expected


def test_peers_that_are_not_installed_are_skipped(data, capsys, tmp_path):
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\nexit 1\n")
    empty.chmod(0o755)
    assert list(input_cases.peers(data[1], 8, str(empty))) == []
    assert capsys.readouterr().out.count("skipped: ") == len(input_cases.PEERS)
    assert list(input_cases.peers(data[1], 8, "")) == []


def test_every_peer_has_a_loader_and_a_writer():
    for _, loader, writer in input_cases.PEERS.values():
        assert loader in loaders.LOADERS
        assert writer in ("", *writers.WRITERS)
