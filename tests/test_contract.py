"""What the outside may rely on: fixed names, who may import whom, and that two apps in one process share nothing."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path

import pytest
from quart import Quart

import llamora
import llamora.settings
from llamora.app import create_app
from llamora.app.services import container
from llamora.app.services.container import AppLifecycle, AppServices, get_db, get_services
from llamora.persistence import LocalDB, run_db_migrations
from llamora.settings import CryptoSettings, DataSettings, EmbeddingSettings, LlmSettings, Settings

SOURCES = Path(llamora.__file__).parent
BELOW = (
    "journal",
    "search",
    "llm",
    "persistence",
    "vault",
    "dates",
    "settings",
    "text",
    "errors",
    "messages",
    "events",
)
# Design §3: a layer, and the layers it may import besides itself.
MATRIX: dict[str, tuple[str, ...]] = {
    "__main__": ("cli", "messages", "vault", "settings", "errors"),
    "cli": ("services", *BELOW),
    "app": ("services", *BELOW),
    "services": BELOW,
    "journal": (
        "search",
        "llm",
        "persistence",
        "vault",
        "dates",
        "settings",
        "text",
        "errors",
        "events",
    ),
    "search": ("persistence", "vault", "dates", "settings", "text", "errors", "events"),
    "persistence": ("vault", "dates", "settings", "text", "errors", "events", "messages"),
    "llm": ("settings", "text", "errors", "events"),
    "vault": ("errors",),
    "dates": ("errors",),
    "settings": ("errors",),
    "text": ("errors",),
    "messages": ("errors",),
    "errors": (),
    "events": (),
    "__init__": (),
}
# The one door to each library: path prefixes of the files that may import it.
DOORS: dict[str, tuple[str, ...]] = {
    "quart": ("app/",),
    "aiosqlite": ("persistence/connection.py",),
    "sqlite3": (
        "persistence/",
        "search/fulltext.py",
        "search/scratch.py",
        "search/spelling.py",
    ),
    "cryptography": ("vault/",),
    "argon2": ("vault/",),
    "fastembed": ("search/",),
    "hnswlib": ("search/",),
    "openai": ("llm/",),
    "httpx2": ("llm/",),
    "hypercorn": ("cli/serve.py",),
    "dynaconf": ("settings.py",),
}
# `dev` and `prod` serve the app; no other command knows the web.
SERVES_THE_APP = "cli/serve.py"
ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"})


def broken_rules(package: Path) -> list[str]:
    """Every place of the tree at `package` (a folder named `llamora`) that breaks a rule of the design."""
    return [
        f"{file.relative_to(package).as_posix()}:{line}: {what}"
        for file in sorted(package.rglob("*.py"))
        for line, what in _broken_in(
            file.relative_to(package).as_posix(), ast.parse(file.read_text(encoding="utf-8"))
        )
    ]


def _broken_in(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    layer = name.partition("/")[0].removesuffix(".py")
    if layer not in MATRIX:
        yield 1, f"the layer {layer} is not in the matrix"
        return
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for module in _imported(name, node):
            library, *rest = module.split(".")
            if library == "llamora":
                # What is no layer is a name of the package itself, such as its version.
                if (
                    rest
                    and rest[0] in MATRIX
                    and rest[0] not in (layer, "__init__", *MATRIX[layer])
                    and (name, rest[0]) != (SERVES_THE_APP, "app")
                ):
                    yield line, f"{layer} imports {rest[0]}"
            elif not name.startswith(DOORS.get(library, ("",))):
                yield line, f"{library} has another door"
        if (
            isinstance(node, ast.Call)
            and _dotted(node.func) == "print"
            and not name.startswith(("__main__.py", "cli/"))
        ):
            yield line, "print"
        if name != "settings.py" and _reads_environment(node):
            yield line, "the environment is read outside settings"
        if (
            name.startswith("search/")
            and isinstance(node, ast.Call)
            and _dotted(node.func) == "sqlite3.connect"
        ):
            where = node.args[0] if node.args else None
            if not (isinstance(where, ast.Constant) and where.value == ":memory:"):
                yield line, "search may open :memory: only"
        if isinstance(node, ast.Global):
            yield line, "state of the module"
    yield from _module_state(tree)


def _imported(name: str, node: ast.AST) -> Iterator[str]:
    """The modules a node imports, absolute."""
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            base = node.module or ""
            if node.level:
                folders = ["llamora", *name.split("/")[:-1]]
                base = ".".join(
                    [*folders[: len(folders) - node.level + 1], *([base] if base else [])]
                )
            # `from llamora import x` names a layer, as `from llamora.x import y` does.
            yield from (
                (f"llamora.{alias.name}" for alias in node.names) if base == "llamora" else [base]
            )
        case ast.Call(args=[ast.Constant(value=str(module)), *_]) if _dotted(node.func).split(".")[
            -1
        ] in (
            "import_module",
            "__import__",
        ):
            yield module
        case _:
            pass


def _reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in ENVIRONMENT for alias in node.names)
    return (
        isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and _dotted(node.value) == "os"
    )


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _module_state(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Containers of the module that its functions change."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    changing = {
        "append",
        "add",
        "update",
        "setdefault",
        "pop",
        "extend",
        "insert",
        "clear",
        "remove",
        "discard",
    }
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(function):
            found = ""
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
                found = _dotted(node.value)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in changing
            ):
                found = _dotted(node.func.value)
            if found in names:
                yield getattr(node, "lineno", 0), f"{found} is state of the module"


# -- the rules ---------------------------------------------------------------------------------------


def test_the_sources_keep_the_rules() -> None:
    assert broken_rules(SOURCES) == []


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        (
            "vault/keys.py",
            "from llamora.persistence.users import User",
            "vault imports persistence",
        ),
        ("dates.py", "import llamora.settings", "dates imports settings"),
        ("persistence/users.py", "from llamora import search", "persistence imports search"),
        ("persistence/users.py", "from ..journal import entries", "persistence imports journal"),
        ("llm/client.py", "def f():\n    from llamora.dates import zone", "llm imports dates"),
        (
            "search/query.py",
            'import importlib\nimportlib.import_module("llamora.llm.client")',
            "search imports llm",
        ),
        ("journal/entries.py", "from llamora.app.pages import page", "journal imports app"),
        ("settings.py", "from llamora import __main__", "settings imports __main__"),
        ("gamification/streaks.py", "", "the layer gamification is not in the matrix"),
        ("journal/entries.py", "from quart import request", "quart has another door"),
        ("persistence/users.py", "import aiosqlite", "aiosqlite has another door"),
        ("journal/accounts.py", "from argon2 import PasswordHasher", "argon2 has another door"),
        ("app/edge/csrf.py", "import cryptography.fernet", "cryptography has another door"),
        ("journal/entries.py", "import sqlite3", "sqlite3 has another door"),
        ("app/views.py", "import openai", "openai has another door"),
        ("journal/entries.py", '__import__("fastembed")', "fastembed has another door"),
        (
            "search/fulltext.py",
            'import sqlite3\nsqlite3.connect("index.db")',
            "search may open :memory: only",
        ),
        (
            "search/fulltext.py",
            "import sqlite3\nsqlite3.connect(path)",
            "search may open :memory: only",
        ),
        ("app/views.py", 'print("x")', "print"),
        ("app/views.py", 'import os\nos.environ["X"]', "the environment is read outside settings"),
        ("app/views.py", "from os import getenv", "the environment is read outside settings"),
        ("app/views.py", "def f():\n    global x\n    x = 1", "state of the module"),
        ("app/views.py", "seen = {}\ndef f():\n    seen[1] = 2", "seen is state of the module"),
        (
            "app/views.py",
            "seen: set[int] = set()\ndef f():\n    seen.add(2)",
            "seen is state of the module",
        ),
    ],
)
def test_a_broken_rule_is_found(file: str, source: str, complaint: str, tmp_path: Path) -> None:
    package = tmp_path / "llamora"
    (package / file).parent.mkdir(parents=True, exist_ok=True)
    (package / file).write_text(source, encoding="utf-8")
    assert [found.split(": ", 1)[1] for found in broken_rules(package)] == [complaint]


def test_an_allowed_import_is_let_through(tmp_path: Path) -> None:
    package = tmp_path / "llamora"
    (package / "search").mkdir(parents=True)
    (package / "search/fulltext.py").write_text(
        "import sqlite3\nimport hnswlib\nfrom llamora import __version__\nfrom llamora.vault.keys import Keyring\n"
        'connection = sqlite3.connect(":memory:", check_same_thread=False)\n',
        encoding="utf-8",
    )
    assert broken_rules(package) == []


def test_every_layer_of_the_matrix_is_there() -> None:
    found = {file.stem for file in SOURCES.glob("*.py")} | {
        folder.name for folder in SOURCES.iterdir() if (folder / "__init__.py").is_file()
    }
    assert found == set(MATRIX)


# -- docstrings --------------------------------------------------------------------------------------


def undocumented(package: Path) -> list[str]:
    """Every function and class that another module of the package imports and that has no docstring."""
    trees = {
        ".".join(["llamora", *file.relative_to(package).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): ast.parse(file.read_text(encoding="utf-8"))
        for file in package.rglob("*.py")
    }
    imported = {
        (node.module, alias.name)
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return sorted(
        f"{module}.{node.name}"
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and (module, node.name) in imported
        and not ast.get_docstring(node)
    )


def test_what_other_modules_import_has_a_docstring() -> None:
    assert undocumented(SOURCES) == []


def test_a_missing_docstring_is_found(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/pages.py").write_text(
        'def page(): ...\ndef part():\n    """Return it."""\ndef own(): ...\n', encoding="utf-8"
    )
    (tmp_path / "app/views.py").write_text(
        "from llamora.app.pages import page, part\n", encoding="utf-8"
    )
    assert undocumented(tmp_path) == ["llamora.app.pages.page"]


# -- routes ------------------------------------------------------------------------------------------

USE_CASES = ("get_services", "change_profile", "save_setting")
"""What a route names to reach a use case."""


def _broken_in_routes(source: str) -> list[str]:
    """Every function of a module of routes that does more than parse, call one use case and answer.

    The functions of the module that it calls count as its own lines. Views are built by app/views.
    """
    tree = ast.parse(source)
    functions = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    broken = [
        "a route imports another"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llamora.app.routes")
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "get_db":
            broken.append("a route reads the store")
        if isinstance(node, ast.Attribute) and node.attr in ("db", "_db"):
            broken.append("a route reads the store")
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and (
            node.value is not None and _is_services(node.value)
        ):
            broken.append("the services have another name")

    def used(name: str, seen: frozenset[str]) -> int:
        count = 0
        for node in ast.walk(functions[name]):
            if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
                continue
            if node.id in USE_CASES:
                count += 1
            elif node.id in functions and node.id not in seen:
                count += used(node.id, seen | {node.id})
        return count

    broken += [
        f"{name} calls {count} use cases"
        for name in functions
        if (count := used(name, frozenset({name}))) > 1
    ]
    return broken


def _is_services(node: ast.AST) -> bool:
    """`get_services()`, or a part of it, without the call of a method."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Call) and _dotted(node.func) == "get_services"


def test_the_web_never_touches_the_store() -> None:
    files = [file for file in (SOURCES / "app").rglob("*.py") if file.name != "container.py"]
    assert len(files) > 40
    touching = [
        file.name
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("db", "_db")
    ]
    assert touching == []


@pytest.mark.parametrize(
    "module", sorted((SOURCES / "app" / "routes").glob("[a-z]*.py")), ids=lambda module: module.stem
)
def test_a_route_calls_one_use_case(module: Path) -> None:
    assert _broken_in_routes(module.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            (
                "async def delete():\n    await get_services().replies.stop(1)\n"
                "    await get_services().trash.delete(1)"
            ),
            "delete calls 2 use cases",
        ),
        (
            (
                "async def save():\n    await change_profile(a=1)\n    await page()\n"
                "async def page():\n    return get_services().days.get(1)"
            ),
            "save calls 2 use cases",
        ),
        ("async def show():\n    await get_services().db.users.get(1)", "a route reads the store"),
        ("from llamora.app.routes.auth import x", "a route imports another"),
        (
            "async def show():\n    services = get_services()\n    services.days.get(1)",
            "the services have another name",
        ),
    ],
)
def test_a_route_that_does_more_is_found(source: str, complaint: str) -> None:
    assert _broken_in_routes(source) == [complaint]


# -- templates ---------------------------------------------------------------------------------------


def test_templates_are_where_what_uses_them_says() -> None:
    """Routes render pages and views; components are only included."""
    sources = "".join(file.read_text(encoding="utf-8") for file in (SOURCES / "app").rglob("*.py"))
    rendered = set(re.findall(r'"(\w+/\w+\.html)"', sources))
    templates = SOURCES / "app" / "templates"
    assert {name.partition("/")[0] for name in rendered} == {"pages", "views"}
    views = {f"views/{file.name}" for file in (templates / "views").iterdir()}
    assert views == {name for name in rendered if name.startswith("views/")}


# -- fixed names -------------------------------------------------------------------------------------


def quiet(folder: Path) -> Settings:
    """Settings of an app without any model, with the cheapest KDF that is allowed."""
    return Settings(
        data=DataSettings(folder / "data", folder / "cache"),
        crypto=CryptoSettings(kdf_target_ms=0),
        llm=replace(LlmSettings(), enabled=False),
        embedding=EmbeddingSettings(enabled=False),
    )


async def test_the_fixed_names(tmp_path: Path) -> None:
    settings = quiet(tmp_path)
    app = create_app(settings)
    services = app.extensions["llamora"]
    assert isinstance(services, AppServices)
    assert services.settings is settings
    assert isinstance(AppServices.create(settings), AppServices)
    assert inspect.iscoroutinefunction(AppLifecycle(services).start)
    assert inspect.iscoroutinefunction(AppLifecycle(services).stop)
    async with app.app_context():
        assert get_services() is services
        assert get_db() is services.db
    assert container.LocalDB is LocalDB
    assert isinstance(services.db, LocalDB)
    for name in ("users", "entries", "tags", "vectors", "search_history"):
        assert hasattr(services.db, name), name
    assert run_db_migrations(settings.data.database, llamora.settings.resource("migrations"))
    assert run_db_migrations(settings.data.database, llamora.settings.resource("migrations")) == []


# -- two apps ----------------------------------------------------------------------------------------


UNCHANGING = (type, Enum, str, bytes, int, float, frozenset, Path, type(None))


def _state(found: object, seen: dict[int, str], path: str) -> None:
    """Collect what can change below `found`: everything but values, frozen dataclasses and functions."""
    if id(found) in seen or isinstance(found, UNCHANGING) or inspect.isroutine(found):
        return
    if not (is_dataclass(found) and type(found).__dataclass_params__.frozen) and not isinstance(  # type: ignore[attr-defined]
        found, tuple
    ):
        seen[id(found)] = path
    if type(found).__module__.split(".")[0] != "llamora" and not isinstance(
        found, dict | list | set | tuple
    ):
        return
    if isinstance(found, dict):
        parts = {str(key): value for key, value in found.items()}
    elif isinstance(found, list | set | tuple):
        parts = {str(number): value for number, value in enumerate(found)}
    elif is_dataclass(found):
        parts = {field.name: getattr(found, field.name) for field in fields(found)}
    else:
        slots = [slot for kind in type(found).__mro__ for slot in getattr(kind, "__slots__", ())]
        parts = {name: getattr(found, name) for name in slots if hasattr(found, name)} | getattr(
            found, "__dict__", {}
        )
    for name, part in parts.items():
        _state(part, seen, f"{path}.{name}")


async def _register(app: Quart, name: str) -> str:
    """Register somebody; the session's cookie."""
    client = app.test_client()
    page = await (await client.get("/register")).get_data(as_text=True)
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token is not None
    form = {
        "csrf": token[1],
        "name": name,
        "passphrase": "seven quiet herons over the weir",
        "zone": "UTC",
    }
    answer = await client.post("/register", form=form)
    assert answer.status_code == 200, await answer.get_data(as_text=True)
    cookie = next(
        value for value in answer.headers.getlist("Set-Cookie") if value.startswith("llamora=")
    )
    return cookie.split(";")[0]


async def test_two_apps_share_nothing(tmp_path: Path) -> None:
    apps = [create_app(quiet(tmp_path / name)) for name in ("one", "two")]
    async with apps[0].test_app(), apps[1].test_app():
        first, second = (app.extensions["llamora"] for app in apps)
        cookie = await _register(apps[0], "Alice")
        # The same name is free in the other, and the session of one is nobody's there.
        await _register(apps[1], "Alice")
        for app, known in zip(apps, (True, False), strict=True):
            answer = await app.test_client().get("/d/today", headers={"Cookie": cookie})
            assert answer.status_code == (200 if known else 303)
        states: list[dict[int, str]] = [{}, {}]
        _state(first, states[0], "app")
        _state(second, states[1], "app")
        assert len(states[0]) > 20
        shared = {path for key, path in states[0].items() if key in states[1]}
        assert shared == set()
        assert first.boot_secret != second.boot_secret
        assert first.settings.data.database.exists()
        assert second.settings.data.database.exists()
