import asyncio
import json
import subprocess
import sys

import pytest

from llamora.llm.client import ModelClient
from tests.llm.asking import KEY, QUICK, say
from tests.scripted_model import Reply, ScriptedModel


async def test_tells_the_server_nothing_it_need_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: something")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with ScriptedModel() as model:
        client = ModelClient(model.url, KEY, QUICK, model="m")
        assert (await say(client))[1] is None
        await client.close()
    [chat] = model.chat_requests
    assert set(chat.headers) <= {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "authorization",
        "content-type",
        "content-length",
    }
    assert chat.headers["authorization"] == f"Bearer {KEY}"
    assert (
        chat.headers["connection"] == "close"
    )  # a kept one may be dead, and a reply is never asked for twice


def test_importing_the_client_imports_no_sdk() -> None:
    import subprocess
    import sys

    code = "import sys, llamora.llm.client, llamora.llm.embedded; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", "import json;" + code], capture_output=True, check=True, text=True
    )
    assert not {"openai", "httpx2", "xllamacpp"} & set(json.loads(out.stdout))


# Another thread (in the server it is fastembed's) has begun to import httpx, slowly, when the first reply is asked for.
SLOW_IMPORT = """
import asyncio, importlib.util, sys, threading, time
import openai.resources.chat
from llamora.llm.client import Message, ModelClient
from llamora.settings import LlmSettings

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name != "httpx":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def slowly(module):
            begun.set()
            time.sleep(3)
            execute(module)
        spec.loader.exec_module = slowly
        return spec

async def ask():
    client = ModelClient(sys.argv[1], "", LlmSettings())
    print("".join([piece async for piece in client.stream([Message("user", "Well?")], max_tokens=9)]))
    await client.close()

begun = threading.Event()
sys.meta_path.insert(0, Slow())
importing = threading.Thread(target=lambda: __import__("httpx"))
importing.start()
begun.wait()
asyncio.run(ask())
importing.join()
"""


async def test_the_first_reply_waits_for_a_module_that_another_thread_imports() -> None:
    async with ScriptedModel() as model:
        model.script(Reply(["Well."]))
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            SLOW_IMPORT,
            model.url,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        said, errors = await child.communicate()
    assert (said.decode().strip(), child.returncode) == ("Well.", 0), errors.decode()[-2000:]
