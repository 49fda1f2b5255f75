"""The page's server over real HTTP, before a model that the test holds back."""

import concurrent.futures
import contextlib
import http.client
import json
import re
import socket
import sys
import threading
import time
import types

import pytest

pytest.importorskip("fastapi")

from support.images import BadImage
from trainer.demo import server
from trainer.demo.answers import Prediction

HANG = 60
BOUNDARY = "x--x"
NO_FORM = "No form with exactly one file."
IN_A_FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


class Answers:
    """Counts what it is asked, and answers when it may."""

    def __init__(self):
        facts = {"probability_of": "perceived Male"}
        self.predictor = types.SimpleNamespace(
            label_names=("not Male", "Male"), abstain=0.1, facts=facts
        )
        self.card, self.run_name, self.can_align = None, "<run>\udce9", False
        self.asked, self.may = [], threading.Event()
        self.may.set()

    def answer(self, data, mode):
        self.asked.append((data, mode))
        if not self.may.wait(HANG):
            raise TimeoutError
        if data.startswith(b"text"):
            raise BadImage("neither JPEG nor PNG", "it is text")
        return Prediction(
            probability_of="perceived Male",
            abstain=0.1,
            width=len(data),
            height=1,
            faces=[],
            notes=[],
            model_sha256=None,
        )


@contextlib.contextmanager
def serving(answers, host="127.0.0.1"):
    """Serves on a free port in a thread; gives the port."""
    listener = socket.create_server((host, 0))
    made = server.make_server(answers, listener, host)
    thread = threading.Thread(target=made.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        answers.may.set()
        made.should_exit = True
        thread.join(HANG)
        listener.close()


@pytest.fixture
def answers():
    return Answers()


@pytest.fixture
def port(answers):
    with serving(answers) as found:
        yield found


def ask(port, method="POST", path="/predict", body=None, headers=None):
    """Status, headers and content of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def form(*files):
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; '
        f'filename="{number}"\r\n\r\n'.encode()
        + data
        for number, data in enumerate(files)
    ]
    return b"\r\n".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def until(is_true):
    end = time.monotonic() + HANG
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pages_load_nothing_from_elsewhere(port):
    for path in ("/", "/card", "/docs"):
        status, headers, content = ask(port, "GET", path)
        assert status == 200
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert headers["X-Content-Type-Options"] == "nosniff"
        text = content.decode()
        links = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert links and all(link.startswith(("/", "data:")) for link in links)
        assert "<run>" not in text and "&lt;run&gt;\\udce9" in text
    assert b"trainer.model_card" in ask(port, "GET", "/card")[2]


@pytest.mark.parametrize("card", ["---\na: 1\n---\n# Card", "---\n# Card", "# Card"])
def test_card_is_shown_with_and_without_its_header(answers, card):
    answers.card = card
    with serving(answers) as port:
        status, _, content = ask(port, "GET", "/card")
    assert status == 200 and b"# Card</pre>" in content


def test_openapi_documents_the_answer(port):
    api = json.loads(ask(port, "GET", "/openapi.json")[2])
    operation = api["paths"]["/predict"]["post"]
    assert set(operation["responses"]) >= {"200", "408", "413", "415", "422", "503"}
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/Prediction"}
    assert set(operation["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "multipart/form-data")
    }
    page = ask(port, "GET", "/docs")[2].decode()
    fields = [*Prediction.model_fields, "heat_map", "detail"]
    assert all(f"<code>{field}</code>" in page for field in fields)
    assert f"http://127.0.0.1:{port}/predict" in page


def test_image_as_body_or_form_is_not_on_disk(port, answers):
    image = bytes(range(256)) * 20_000  # 5 MB
    opened = []
    sys.addaudithook(
        lambda event, args: event == "open" and opened.append(args) if watched else None
    )
    watched = True
    assert ask(port, body=image)[0] == 200
    status, _, content = ask(
        port, path="/predict?align=true", body=form(image), headers=IN_A_FORM
    )
    watched = False
    assert status == 200 and json.loads(content)["width"] == len(image)
    assert answers.asked == [(image, "auto"), (image, "true")]
    assert not opened


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"text", {}, (415, "neither JPEG nor PNG: it is text")),
        (bytes(50_000_000), {}, (413, "More than 20 MB.")),
        (bytes(50_000_000), {"Connection": "close"}, (413, "More than 20 MB.")),
        (iter([bytes(1_000_000)] * 50), {}, (413, "More than 20 MB.")),
        (form(b"1", b"2"), IN_A_FORM, (400, NO_FORM)),
        (form(*[b""] * 20), IN_A_FORM, (400, NO_FORM)),
        (b"--y--", IN_A_FORM, (400, NO_FORM)),
        (b"x", {"Content-Type": "multipart/form-data"}, (400, NO_FORM)),
        (b"x", {"Origin": "http://other.example"}, (403, "Pages of other sites may")),
        (b"x", {"Origin": "null"}, (403, "Pages of other sites may")),
        (b"x", {"Origin": "http://["}, (403, "Pages of other sites may")),
    ],
)
def test_refusal_is_one_line(port, body, headers, expected):
    status, _, content = ask(port, body=body, headers=headers)
    detail = json.loads(content)["detail"]
    assert status == expected[0] and detail.startswith(expected[1])
    assert len(detail.splitlines()) == 1
    assert ask(port, body=b"next")[0] == 200


def test_too_large_is_refused_before_it_is_sent(port):
    headers = {"Content-Length": "50000000", "Expect": "100-continue"}
    status, _, content = ask(port, body=b"", headers=headers)
    assert (status, json.loads(content)) == (413, {"detail": "More than 20 MB."})


def test_unknown_mode_is_refused(port):
    status, _, content = ask(port, path="/predict?align=maybe", body=b"x")
    expected = "align: Input should be 'auto', 'true' or 'false'"
    assert (status, json.loads(content)["detail"]) == (422, expected)


def test_other_host_names_are_refused(port):
    for name, status in (("localhost", 200), ("[::1]:1", 200), ("evil.example", 400)):
        assert ask(port, "GET", "/", headers={"Host": name})[0] == status
    with serving(Answers(), "0.0.0.0") as every:
        assert ask(every, "GET", "/", headers={"Host": "box.example"})[0] == 200


def test_full_queue_asks_to_come_again(port, answers, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING", 3)
    answers.may.clear()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(ask, port, body=b"x") for _ in range(8)]
        until(lambda: sum(call.done() for call in calls) == 5)
        refused = [call.result() for call in calls if call.done()]
        answers.may.set()
        statuses = sorted(call.result()[0] for call in calls)
    assert statuses == [200] * 3 + [503] * 5
    assert all(int(headers["Retry-After"]) > 0 for _, headers, _ in refused)
    assert ask(port, body=b"x")[0] == 200


def test_total_of_uploads_is_bounded(port, answers, monkeypatch):
    monkeypatch.setattr(server, "MAX_TOTAL_BYTES", 1000)
    answers.may.clear()
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        first = threads.submit(ask, port, body=bytes(900))
        until(lambda: answers.asked)
        assert ask(port, body=bytes(900))[0] == 503
        answers.may.set()
        assert first.result()[0] == 200
    assert ask(port, body=bytes(900))[0] == 200


def test_stalling_client_delays_nobody(port, answers, monkeypatch):
    monkeypatch.setattr(server, "UPLOAD_SECONDS", 0.5)
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    stalled = [socket.create_connection(("127.0.0.1", port), HANG) for _ in range(50)]
    for number, client in enumerate(stalled):
        client.sendall([head + b"x", head, head[:30], b""][number % 4])
    assert ask(port, body=b"x")[0] == 200
    for client in stalled[::4]:
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        while client.recv(1000):  # until the server closes
            pass
    for client in stalled:
        client.close()
    assert len(answers.asked) == 1


def test_nothing_is_computed_for_a_client_that_left(port, answers, capfd):
    answers.may.clear()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, port, body=b"first")
        until(lambda: answers.asked)
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        for text in ("5\r\n\r\nleft1", "9\r\n\r\nleft2"):  # in the queue; sending
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall((head + text).encode())
                time.sleep(0.2)  # else the server might not read it before the end
        last = threads.submit(ask, port, body=b"last")
        time.sleep(0.2)
        answers.may.set()
        assert first.result()[0] == last.result()[0] == 200
    assert [data for data, _ in answers.asked] == [b"first", b"last"]
    assert capfd.readouterr().err == ""


def test_bug_is_reported_and_the_next_image_works(port, answers, capfd):
    good, answers.answer = answers.answer, lambda data, mode: 1 / 0
    status, _, content = ask(port, body=b"x")
    assert (status, len(json.loads(content)["detail"].splitlines())) == (500, 1)
    assert capfd.readouterr().err.endswith("ZeroDivisionError: division by zero\n")
    answers.answer = good
    assert ask(port, body=b"x")[0] == 200
