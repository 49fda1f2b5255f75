"""The drawn sample: CelebA's formats, same seed same bytes, whole or absent."""

import json

import numpy as np
import pytest
import simplejpeg

from beam_pipelines import synthesize
from beam_pipelines.sample import faces, people
from beam_pipelines.synthesize import SynthesizeConfig
from schemas import celeba
from support import command
from support.errors import ExitCode, UserError


def make(folder, **options) -> dict[str, bytes]:
    """Makes a sample; returns the bytes of each of its files by relative path."""
    synthesize.synthesize(SynthesizeConfig(output_dir=str(folder), **options))
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> dict[str, bytes]:
    return make(tmp_path_factory.mktemp("sample") / "s", num_examples=60, num_workers=1)


def lines(sample: dict[str, bytes], name: str) -> list[str]:
    assert sample[name].endswith(b"\r\n")
    return sample[name].decode().split("\r\n")[:-1]


def columns(sample: dict[str, bytes], name: str) -> np.ndarray:
    return np.array([int(line.split(" ")[1]) for line in lines(sample, name)])


def test_files_are_celebas(sample):
    names = [f"{index:06d}.jpg" for index in range(1, 61)]
    images = {f"{celeba.IMAGE_FOLDER}/{name}" for name in names}
    annotations = {celeba.ATTRIBUTES_FILE, celeba.PARTITION_FILE, celeba.IDENTITY_FILE}
    assert set(sample) == images | annotations | {celeba.SAMPLE_FILE}
    for name in (celeba.PARTITION_FILE, celeba.IDENTITY_FILE):
        assert [line.split(" ")[0] for line in lines(sample, name)] == names
    count, header, *rows = lines(sample, celeba.ATTRIBUTES_FILE)
    assert count == "60"
    assert header == " ".join(celeba.ATTRIBUTES) + " "
    for name, row in zip(names, rows, strict=True):
        values = [row[10 + 3 * index : 13 + 3 * index] for index in range(40)]
        assert set(values) <= {" -1", "  1"}
        assert row == name + "".join(values)


def test_images_are_upright_color_jpegs_of_celebas_size(sample):
    for name, data in sample.items():
        if name.endswith(".jpg"):
            height, width, color, _ = simplejpeg.decode_jpeg_header(data)
            assert (height, width) == celeba.ALIGNED_SIZE
            assert color == "YCbCr"
    image = simplejpeg.decode_jpeg(sample[f"{celeba.IMAGE_FOLDER}/000001.jpg"])
    assert image.std() > 20  # something is drawn


def test_nobody_is_in_two_splits_and_every_split_has_both_classes(sample):
    splits = columns(sample, celeba.PARTITION_FILE)
    identities = columns(sample, celeba.IDENTITY_FILE)
    assert (np.diff(splits) >= 0).all()
    position = 10 + 3 * celeba.ATTRIBUTES.index("Male")
    male = np.array(
        [
            row[position : position + 3] == "  1"
            for row in lines(sample, celeba.ATTRIBUTES_FILE)[2:]
        ]
    )
    for identity in set(identities.tolist()):
        assert len(set(splits[identities == identity].tolist())) == 1
        assert len(set(male[identities == identity].tolist())) == 1
    for split in range(3):
        assert set(male[splits == split].tolist()) == {True, False}


def test_splits_are_80_10_10():
    identities, splits = synthesize.make_plan(seed=3, num_examples=5000)
    fractions = np.bincount(splits) / 5000
    assert fractions == pytest.approx([0.8, 0.1, 0.1], abs=0.002)
    assert set(np.bincount(identities)[1:].tolist()) == {1, 2, 3, 4, 5, 6}


def test_same_seed_same_bytes_whatever_the_number_of_processes(tmp_path, sample):
    assert make(tmp_path / "two", num_examples=60, num_workers=2) == sample
    other = make(tmp_path / "other", num_examples=60, num_workers=1, seed=1)
    image = f"{celeba.IMAGE_FOLDER}/000001.jpg"
    assert other[image] != sample[image]


def test_a_repeat_changes_nothing_and_other_parameters_are_refused(tmp_path, capsys):
    folder = tmp_path / "s"
    before = make(folder, num_examples=3)
    capsys.readouterr()
    (folder / ".DS_Store").write_text("a file browser's")
    make(folder, num_examples=3)
    assert "already there" in capsys.readouterr().out
    (folder / ".DS_Store").unlink()
    with pytest.raises(UserError, match="not the sample that these") as refusal:
        make(folder, num_examples=4)
    assert refusal.value.exit_code == ExitCode.OUTPUT
    assert make(folder, num_examples=3) == before


@pytest.mark.parametrize(
    "lost", [celeba.IDENTITY_FILE, f"{celeba.IMAGE_FOLDER}/000002.jpg", "version"]
)
def test_an_old_or_incomplete_sample_is_replaced(tmp_path, lost):
    before = make(tmp_path / "s", num_examples=3)
    path = tmp_path / "s" / celeba.SAMPLE_FILE
    if lost == "version":
        path.write_text(path.read_text().replace(f": {faces.VERSION},", ": 0,"))
    else:
        (tmp_path / "s" / lost).unlink()
    mine = tmp_path / "s" / "mine.txt"
    mine.write_text("keep me")
    with pytest.raises(UserError, match="not the sample that these"):
        make(tmp_path / "s", num_examples=3)
    mine.unlink()
    assert make(tmp_path / "s", num_examples=3) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not the sample") as refusal:
        make(tmp_path, num_examples=3)
    assert refusal.value.exit_code == ExitCode.OUTPUT
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_interrupted_leaves_nothing_and_a_killed_run_is_cleaned_up(
    tmp_path, monkeypatch
):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(faces, "draw_face", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "s", num_examples=3)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / ".s.celeba-drawing").mkdir()
    (tmp_path / ".s.celeba-drawing" / "half.jpg").write_bytes(b"half")
    (tmp_path / "s.building").mkdir()  # the user's
    assert len(make(tmp_path / "s", num_examples=3)) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "s.building"]


@pytest.mark.parametrize(
    "options",
    [
        {"num_examples": 0},
        {"seed": -1},
        {"num_workers": -1},
        {"output_dir": "s3://bucket/sample"},
        {"output_dir": ""},
    ],
)
def test_bad_values_are_usage_errors(options):
    with pytest.raises(UserError) as error:
        SynthesizeConfig(**options)
    assert error.value.exit_code == ExitCode.USAGE


def test_main_reads_flags_in_a_process_of_its_own(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "beam_pipelines.synthesize", "--num_examples=2"]
    done = subprocess.run(
        [*command, f"--output_dir={tmp_path / 's'}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Drew 2 images of ")
    assert json.loads((tmp_path / "s" / celeba.SAMPLE_FILE).read_text()) == {
        "format": celeba.SAMPLE_FORMAT,
        "version": faces.VERSION,
        "num_examples": 2,
        "seed": 0,
    }


def draw_labels(count: int) -> list[frozenset[str]]:
    labels = []
    for identity in range(1, count + 1):
        person = people.draw_person(identity, np.random.default_rng((5, identity)))
        rng = np.random.default_rng((6, identity))
        labels.append(people.draw_attributes(person, rng))
    return labels


def test_attributes_are_as_frequent_as_in_celeba_and_consistent():
    labels = draw_labels(6000)
    male = [has for has in labels if "Male" in has]
    female = [has for has in labels if "Male" not in has]
    assert len(male) / len(labels) == pytest.approx(people.MALE_SHARE, abs=1e-3)
    for name, frequencies in people.TABLE.items():
        for group, expected in zip((female, male), frequencies[:2], strict=True):
            frequency = sum(name in has for has in group) / len(group)
            assert frequency == pytest.approx(expected, abs=0.05), name
    colors = {"Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair", "Bald"}
    for has in labels:
        assert len(has & colors) <= 1
        for winner, losers in people.EXCLUDES.items():
            assert winner not in has or not has & losers


def test_each_attribute_is_drawn():
    """Adding any one attribute to a plain face changes the picture."""
    person = people.draw_person(1, np.random.default_rng(3))
    plain = frozenset({"No_Beard", "Young", "Brown_Hair", "Attractive"})

    def draw(has):  # three images, since some lipsticks look natural
        rngs = [np.random.default_rng(seed) for seed in range(3)]
        return np.stack([faces.draw_face(person, has, rng) for rng in rngs]).astype(int)

    for name in set(celeba.ATTRIBUTES) - {"Male"}:
        with_it, without = plain | {name}, plain - {name}
        if name in ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns"):
            with_it -= {"No_Beard"}
        if name in ("Black_Hair", "Blond_Hair", "Gray_Hair"):
            with_it -= {"Brown_Hair"}
        change = np.abs(draw(with_it) - draw(without)).max(axis=-1)
        assert (change > 15).sum() >= 15, name


def test_images_of_one_person_look_alike():
    """The same attributes: another image of a person is nearer than another person."""

    def draw(identity, image):
        person = people.draw_person(identity, np.random.default_rng((1, identity)))
        has = frozenset({"No_Beard", "Young", "Brown_Hair"})
        picture = faces.draw_face(person, has, np.random.default_rng((2, image)))
        return picture[90:150, 60:120].mean(axis=(0, 1)) / picture.mean()

    same = [np.abs(draw(one, 0) - draw(one, 1)).sum() for one in range(1, 21)]
    other = [np.abs(draw(one, 0) - draw(one + 1, 1)).sum() for one in range(1, 21)]
    assert np.mean(same) < np.mean(other)


def test_sample_with_files_of_the_user_is_not_replaced(tmp_path):
    folder = tmp_path / "sample"
    words = [f"--output_dir={folder}", "--num_examples=12", "--num_workers=1"]
    assert command.guard(synthesize.main, ["synthesize", *words]) == ExitCode.OK
    (folder / "img_align_celeba" / "000001.jpg").unlink()
    own = folder / "img_align_celeba" / "my photo.jpg"
    own.write_bytes(b"mine")
    assert command.guard(synthesize.main, ["synthesize", *words]) == ExitCode.OUTPUT
    assert own.read_bytes() == b"mine"
