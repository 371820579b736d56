"""Emulators of Google's and Amazon's object stores, from PyPI, in separate processes.

pip install -r experiments/survival/requirements.txt
"""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUCKET = "bucket"
NEEDED = {"gs": ("gcsfs", "gcp_storage_emulator"), "s3": ("s3fs", "moto", "flask")}
"""Packages by the scheme of the store: the client, and the emulator."""


def missing(scheme: str) -> list[str]:
    """Packages that are not installed."""
    return [name for name in NEEDED[scheme] if importlib.util.find_spec(name) is None]


@contextlib.contextmanager
def emulated(scheme: str) -> Iterator[dict[str, str]]:
    """A store with an empty bucket `BUCKET`; yields environment variables for its clients."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "gs": {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url},
        "s3": {
            **{"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"},
            **{"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"},
        },
    }[scheme]
    command = [sys.executable, "-m", "experiments.survival.emulators", scheme, str(port)]
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=nowhere, stderr=nowhere
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, "the emulator ended"
            time.sleep(0.1)
        if scheme == "s3":
            import boto3

            boto3.client("s3", endpoint_url=url, **AMAZON).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        process.kill()
        process.wait()


AMAZON = {
    "region_name": "us-east-1",
    "aws_access_key_id": "none",
    "aws_secret_access_key": "none",
}


def _google(port: int) -> None:
    """Google's store, with the preconditions and the header that TensorStore relies on."""
    from http.server import HTTPServer

    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    def generation(request: Any, storage: Any, name: str) -> str:
        try:
            found = storage.get_file_obj(request.params["bucket_name"], name)
        except NotFound:
            return "0"
        return str(found["generation"])

    def insert(request: Any, response: Any, storage: Any, *rest: Any) -> None:
        asked = request.query.get("ifGenerationMatch")
        meta = {} if "name" in request.query else (request.data or {}).get("meta", request.data)
        name = request.query.get("name", [meta.get("name")])[0]
        if asked and asked[0] != generation(request, storage, name):
            response.status = server.HTTPStatus.PRECONDITION_FAILED
        else:
            objects.insert(request, response, storage, *rest)

    def get(request: Any, response: Any, storage: Any, *rest: Any) -> None:
        found = generation(request, storage, request.params["object_id"])
        if request.query.get("ifGenerationNotMatch") == [found] != ["0"]:
            response.status = server.HTTPStatus.NOT_MODIFIED
            return
        response["x-goog-generation"] = found
        objects.get(request, response, storage, *rest)

    own: dict[Callable, Callable] = {objects.insert: insert, objects.get: get}
    server.HANDLERS = [
        (route, {method: own.get(handler, handler) for method, handler in handlers.items()})
        for route, handlers in server.HANDLERS
    ]
    HTTPServer.request_queue_size = 1024  # clients open many connections at once
    server.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET).run()


def _amazon(port: int) -> None:
    from moto.server import main

    main(["-H", "127.0.0.1", "-p", str(port)])


if __name__ == "__main__":
    {"gs": _google, "s3": _amazon}[sys.argv[1]](int(sys.argv[2]))
