"""One thread of a WSGI server stays free: counting, waiting, and which servers are known."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import waitress
from cheroot.wsgi import Server
from flask import Flask

from floop_gateway_core.hosting.server_threads import ServerThreads, server_threads


def test_one_thread_stays_free_and_a_short_wait_may_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = ServerThreads()
    assert [True] * 7 == [threads.enter(8) for _ in range(7)]
    began = time.monotonic()
    assert not threads.enter(8)
    assert 0.9 < time.monotonic() - began < 10
    threads.leave()
    timer = threading.Timer(0.1, threads.leave)
    timer.start()
    assert threads.enter(8)
    timer.join()


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_small_and_unknown_servers_are_left_alone(threads: int | None) -> None:
    counted = ServerThreads()
    assert all(counted.enter(threads) for _ in range(100))


def test_a_pool_of_threads_tells_its_size() -> None:
    assert server_threads() is None
    with ThreadPoolExecutor(5) as pool:
        assert 5 == pool.submit(server_threads).result()
    found: list[int | None] = []
    other = threading.Thread(target=lambda: found.append(server_threads()))
    other.start()
    other.join()
    assert [None] == found


@contextmanager
def on_waitress(app: Flask) -> Iterator[str]:
    server = waitress.create_server(app, host="127.0.0.1", port=0, threads=6)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()
    thread.join(10)


@contextmanager
def on_cheroot(app: Flask) -> Iterator[str]:
    server = Server(("127.0.0.1", 0), app, numthreads=6)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.bind_addr[1]}"
    server.stop()
    thread.join(10)


@pytest.mark.parametrize("serve", [on_waitress, on_cheroot])
def test_a_server_tells_its_threads(serve: object) -> None:
    app = Flask(__name__)
    app.add_url_rule("/", "threads", lambda: str(server_threads()))
    assert callable(serve)
    with serve(app) as url:
        assert "6" == httpx.get(url).text
