"""The services and the store of the app that serves the current request."""

from typing import cast

from quart import current_app

from llamora.persistence.local_db import LocalDB
from llamora.services import AppLifecycle, AppServices

__all__ = ["EXTENSION", "AppLifecycle", "AppServices", "LocalDB", "get_db", "get_services"]

EXTENSION = "llamora"


def get_services() -> AppServices:
    """Return the services of the app that serves the current request."""
    return cast(AppServices, current_app.extensions[EXTENSION])


def get_db() -> LocalDB:
    """Return the store of the app that serves the current request."""
    return get_services().db
