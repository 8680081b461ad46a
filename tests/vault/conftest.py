"""The vault is tested with the KDF that it has."""

from collections.abc import Iterator

import pytest

from llamora.vault import kdf
from tests.conftest import REAL_ARGON2ID


@pytest.fixture(scope="package", autouse=True)
def always_real() -> Iterator[None]:
    """Use Argon2id in every test here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kdf, "argon2id", REAL_ARGON2ID)
        yield
