"""The lock drifts with pyproject.toml and with nothing else."""

import zipfile
from pathlib import Path

import pytest

from scripts.check import LOCK, drift, lock

LINE = "oak==1.0 ; {} \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
LINUX_OR_MAC = (
    "(python_full_version < '3.15' and sys_platform == 'linux')"
    " or (python_full_version < '3.15' and sys_platform == 'darwin')"
)


def _project(tree: Path, dependencies: str) -> None:
    (tree / "pyproject.toml").write_text(
        f"""[project]
name = "tree"
version = "1"
requires-python = ">=3.11"
dependencies = {dependencies}
[dependency-groups]
models = []
[tool.uv]
no-index = true
find-links = ["wheels"]
"""
    )


def _release(tree: Path, name: str, version: str) -> None:
    (tree / "wheels").mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(tree / "wheels" / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def tree(tmp_path):
    _release(tmp_path, "oak", "1.0")
    _release(tmp_path, "elm", "1.0")
    _project(tmp_path, '["oak>=1", "elm; sys_platform == \'linux\'"]')
    assert not lock(tmp_path, fix=False)
    assert lock(tmp_path, fix=True)
    return tmp_path


def test_a_release_made_since_is_not_drift(tree):
    written = (tree / LOCK).read_bytes()
    _release(tree, "oak", "2.0")
    assert lock(tree, fix=False)
    assert lock(tree, fix=True)
    assert (tree / LOCK).read_bytes() == written


@pytest.mark.parametrize(
    "dependencies",
    ['["oak>=2", "elm; sys_platform == \'linux\'"]', '["oak>=1", "elm"]', '["oak>=1"]'],
)
def test_a_changed_dependency_is_drift_until_it_is_fixed(tree, dependencies):
    _release(tree, "oak", "2.0")
    _project(tree, dependencies)
    assert not lock(tree, fix=False)
    assert lock(tree, fix=True)
    assert lock(tree, fix=False)


def test_a_hash_that_no_file_has_is_drift(tree):
    path = tree / LOCK
    path.write_text(path.read_text().replace("sha256:", "sha256:0"))
    assert not lock(tree, fix=False)


def test_a_host_in_the_lock_is_refused(tree):
    with (tree / LOCK).open("a") as file:
        file.write("# https://example.org\n")
    assert not lock(tree, fix=False)


def test_a_marker_may_be_written_in_another_form():
    other = "python_full_version < '3.15' and (sys_platform == 'darwin' or sys_platform == 'linux')"
    assert drift(LINE.format(LINUX_OR_MAC), LINE.format(other)) == []


@pytest.mark.parametrize(
    "marker",
    [
        "python_full_version < '3.14' and (sys_platform == 'darwin' or sys_platform == 'linux')",
        "python_full_version < '3.15' and sys_platform == 'linux'",
        "python_full_version < '3.15' and sys_platform != 'win32'",
        "sys_platform == 'darwin' or sys_platform == 'linux'",
    ],
)
def test_a_marker_that_chooses_other_machines_is_drift(marker):
    assert drift(LINE.format(LINUX_OR_MAC), LINE.format(marker)) == ["oak==1.0: another marker"]


def test_files_added_to_a_release_are_not_drift():
    assert drift("oak==1.0 --hash=sha256:aa", "oak==1.0 --hash=sha256:aa --hash=sha256:bb") == []
    assert drift("oak==1.0", "oak==1.0 --hash=sha256:aa") == ["oak==1.0: other hashes"]
