"""The program: its exit codes and, marked slow, a process with a tiny run's model."""

import concurrent.futures
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tensorflow as tf

from support import command
from support.errors import ExitCode
from tests.trainer.inference.photos import needs_mtcnn, photo
from trainer.demo import __main__ as demo
from trainer.predict import Predictor

ROOT = Path(__file__).parents[3]
HANG = 120
#: `trainer.demo` with the tiny architecture; at its end it names the files that were
#: opened for writing since it was ready.
PROGRAM = """
import atexit, os, sys
sys.dont_write_bytecode = True
import trainer.quiet
from support import command
from tests.trainer import tiny_run
from trainer import models
from trainer.demo import __main__ as demo

def hook(event, args):
    if event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(args[0])

def announce(*args):
    sys.addaudithook(hook)
    original(*args)

models.ARCHITECTURES["tiny"] = models.Architecture("Tiny", tiny_run.backbone)
written, original, demo._announce = [], demo._announce, announce
atexit.register(lambda: print("written:", written))
command.run(demo.main)
"""


@pytest.mark.parametrize(
    ("flags", "code", "line"),
    [
        ([], ExitCode.USAGE, "--run_dir is missing."),
        (["--run_dir=x", "--port=70000"], ExitCode.USAGE, "not between 0 and 65535"),
        (["--run_dir=x", "--host=a..b"], ExitCode.USAGE, "--host=a..b is not found"),
        (["--run_dir=x", "photo.jpg"], ExitCode.USAGE, "'photo.jpg' is not a flag."),
        (["--run_dir=x", "--port=0"], ExitCode.INPUT_DATA, "x is not a run folder"),
    ],
)
def test_error_is_one_line_and_a_remedy(flags, code, line, capsys):
    pytest.importorskip("fastapi")
    assert command.guard(demo.main, ["demo", *flags]) == code
    error = capsys.readouterr().err
    assert line in error and len(error.splitlines()) == 2


def test_port_in_use_and_missing_extra(capsys, monkeypatch):
    pytest.importorskip("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as other:
        flags = ["demo", "--run_dir=x", f"--port={other.getsockname()[1]}"]
        assert command.guard(demo.main, flags) == ExitCode.OUTPUT
    assert "cannot be used: Address already in use." in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "trainer.demo.server")
    monkeypatch.delattr("trainer.demo.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert command.guard(demo.main, flags) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        "error: The page needs uvicorn, not installed here.\n"
        "       Install the extra: pip install -e '.[demo]'\n"
    )


@pytest.fixture(scope="module")
def process(run_dir):
    """The program, and the address that it prints."""
    pytest.importorskip("fastapi")
    words = [sys.executable, "-c", PROGRAM, f"--run_dir={run_dir}", "--port=0"]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, cwd=ROOT, env=environment, **pipe) as started:
        try:
            line = started.stdout.readline()
            ready = re.fullmatch(r"ready: (http://127\.0\.0\.1:\d+)/\n", line)
            assert ready, line + started.stderr.read()
            yield started, ready[1]
        finally:
            started.kill()


@pytest.fixture
def address(process):
    return process[1]


def image(height=40, width=32, bright=True):
    pixels = np.random.default_rng(0).integers(60, 120, (height, width, 3), np.uint8)
    pixels[: height // 2 if bright else 0] += 90
    return pixels


def ask(address, body, path="/predict"):
    host = address.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=HANG)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.slow
def test_answer_equals_the_predictor(address, run_dir):
    predictor = Predictor(run_dir)
    data = simplejpeg.encode_jpeg(image())
    status, answer = ask(address, data)
    [row] = predictor.predict(data).to_dict("records")
    [face] = answer["faces"]
    assert status == 200 and answer["probability_of"] == "perceived Male"
    assert (answer["width"], answer["height"], answer["notes"]) == (32, 40, [])
    assert abs(face["probability"] - row["probability"]) < 1e-6
    assert (face["label"], face["abstained"]) == (row["label"], row["abstained"])
    assert face["label_name"] == predictor.label_names[face["label"]]
    for name in ("image", "heat_map"):
        assert face[name].startswith("data:image/jpeg;base64,/9j/")
    assert answer["model_sha256"] == predictor.facts["sha256"]
    square = np.dstack([image(64, 64), np.zeros((64, 64, 1), np.uint8)])
    square = tf.io.encode_png(square).numpy()
    _, answer = ask(address, square, "/predict?align=false")
    assert [note[:20] for note in answer["notes"]] == [
        *("The transparent imag", "The model was traine")
    ]


@needs_mtcnn
@pytest.mark.slow
def test_faces_of_a_photo_have_their_boxes(address):
    data = simplejpeg.encode_jpeg(photo((3, 130, 170, 1, 15), (4, 380, 190, 1.2, -25)))
    _, answer = ask(address, data)  # of another aspect: faces are looked for
    centers = [
        (x + width / 2, y + height / 2)
        for x, y, width, height in (face["box"] for face in answer["faces"])
    ]
    np.testing.assert_allclose(centers, [(130, 170), (380, 190)], atol=40)
    assert answer["notes"] == [] and answer["width"] == 520
    _, answer = ask(address, simplejpeg.encode_jpeg(image()), "/predict?align=true")
    assert (answer["faces"], answer["notes"]) == ([], ["No face was found."])


@pytest.mark.slow
def test_bad_image_is_one_line(address):
    data = simplejpeg.encode_jpeg(image())
    forged = data.replace(b"\0\x28\0\x20", b"\xff\xdc\xff\xdc", 1)
    for body, status, line in (
        (b"hello", 415, "neither JPEG nor PNG: it is text: 'hello'"),
        (forged, 413, "too large: 65500x65500 pixels"),
        (data[:-100], 422, "truncated: "),
        (bytes(50_000_000), 413, "More than 20 MB."),
    ):
        found, answer = ask(address, body)
        assert (found, list(answer)) == (status, ["detail"])
        assert answer["detail"].startswith(line) and "\n" not in answer["detail"]


@pytest.mark.slow
def test_200_requests_at_concurrency_16(address):
    images = [simplejpeg.encode_jpeg(image(bright=bright)) for bright in (True, False)]
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda data: ask(address, data), images * 100))
    assert {status for status, _ in found} == {200}
    for start in (0, 1):  # every client gets the answer to its own image
        own = {answer["faces"][0]["probability"] for _, answer in found[start::2]}
        assert max(own) - min(own) < 1e-6
    assert found[0][1]["faces"] != found[1][1]["faces"]


@pytest.mark.slow
def test_page_in_a_browser(address, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(simplejpeg.encode_jpeg(image()))
    _, answer = ask(address, photo.read_bytes())
    expected = f"{100 * answer['faces'][0]['probability']:.1f}\u00a0%"
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        page, problems, requests = browser.new_page(), [], []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        assert "Perceived attribute: Male" in page.inner_text("h1")
        for _ in range(3):  # two links, then the photo
            page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        page.set_input_files("#file", photo)
        assert page.wait_for_selector("#faces .value").inner_text() == expected
        assert page.inner_text("#faces .name") == "Probability of perceived Male"
        shown = "image => image.complete && image.naturalWidth > 0"
        assert page.eval_on_selector_all("#faces img", f"all => all.every({shown})")
        left = page.eval_on_selector("#faces .band", "band => band.style.left")
        assert left == f"{100 * (0.5 - answer['abstain']):g}%"
        drop = """data => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([data], "notes.txt"));
            const options = {bubbles: true, cancelable: true, dataTransfer: transfer};
            document.body.dispatchEvent(new DragEvent("drop", options));
        }"""
        page.evaluate(drop, "hello")
        page.wait_for_selector("#status.note")
        assert "it is text: 'hello'" in page.inner_text("#status")
        assert not page.is_visible("#result")
        assert not [text for text in problems if "415" not in text]
        page.click("text=Model card")
        assert "perceived attribute Male" in page.inner_text("pre")
        browser.close()
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)


@pytest.mark.slow
def test_ctrl_c_ends_it_and_nothing_was_written(process):
    """The last test: it ends the process that the others asked."""
    started, address = process
    assert ask(address, simplejpeg.encode_jpeg(image()))[0] == 200
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    with socket.create_connection(place) as stalled:  # while it sends
        stalled.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\n")
        stalled.sendall(b"Content-Length: 10\r\n\r\nx")
        time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        assert stalled.recv(1000).startswith(b"HTTP/1.1 503 ")
    out, error = started.communicate(timeout=HANG)
    assert (started.returncode, error) == (0, "")
    assert out.splitlines() == ["stopped", "written: []"]
