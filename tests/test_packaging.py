"""What is uploaded: both archives build, are described as an index wants it, and hold what they should and nothing else."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_the_archives_are_what_an_index_and_an_installer_want(tmp_path: Path) -> None:
    run("build", "--no-isolation", "--outdir", str(tmp_path), ".")
    run("twine", "check", "--strict", *map(str, tmp_path.iterdir()))
    run("check_wheel_contents", "--ignore", "W009", *map(str, tmp_path.glob("*.whl")))  # W009: several packages
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert {"floop_gateway_core", "floop_gateway_asgi", "floop_gateway_flask", "floop_gateway_aiohttp"} == packages
    assert packages <= {name.removesuffix("/py.typed") for name in names if name.endswith("/py.typed")}
    (source,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "tests/test_packaging.py"} <= held
