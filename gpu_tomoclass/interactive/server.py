"""The local server of ``gpu-tomoclass paint``: one page, one WebSocket, one door for uploads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gpu_tomoclass.errors import ResourceError, TomoclassError, UsageError

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import FileResponse, JSONResponse, Response
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.staticfiles import StaticFiles
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError as error:
    raise ResourceError(
        f"painting in a browser needs {error.name}, which is not installed", do="pip install 'gpu_tomoclass[paint]'"
    ) from error

from gpu_tomoclass.interactive.access import Guard
from gpu_tomoclass.interactive.painter import Painter, suffix_of, upload_folder

PAGE = Path(__file__).with_name("page")
MOST_UPLOADED = 2**30  # bytes
MOST_ASKED = 2**22  # bytes of a request: a stroke of a hundred thousand points
WAITING = 256  # messages for a page that does not take them; then it is cut off, and comes again by itself
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def make_app(painter: Painter, *, port: int, origins: Sequence[str], on_new_token: Callable[[str], None]) -> Guard:
    """The application, behind its guard; see :class:`~gpu_tomoclass.interactive.access.Guard`."""

    async def page(request: Request) -> Response:
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html; charset=utf-8")

    async def upload(request: Request) -> Response:
        name, target = request.query_params.get("name", ""), None
        try:
            suffix = suffix_of(name)
            with upload_folder() as folder:
                target = Path(folder, f"upload{suffix}")
                size = 0
                with target.open("xb") as file:
                    async for part in request.stream():
                        size += len(part)
                        if size > MOST_UPLOADED:
                            raise UsageError(f"has more than {MOST_UPLOADED} bytes", do="give it on the command line")
                        file.write(part)
                what = await asyncio.to_thread(painter.upload, f"upload{suffix}", target)
        except (TomoclassError, OSError) as error:
            # Whoever sent it knows it by its own name, which the page says.
            return JSONResponse({"error": str(error).replace(f"{target}: ", "").replace(str(target), name)}, 400)
        return JSONResponse({"opened": what})

    async def strokes(request: Request) -> Response:
        folder = upload_folder()
        try:
            path = await asyncio.to_thread(painter.strokes_file, folder.name)
        except (TomoclassError, OSError) as error:
            folder.cleanup()
            return Response(str(error), 400, media_type="text/plain; charset=utf-8")
        return FileResponse(path, filename=path.name, background=BackgroundTask(folder.cleanup))

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/strokes.tif", strokes),
            Route("/open", upload, methods=["POST"]),
            WebSocketRoute("/talk", partial(_talk, painter)),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
    )
    return Guard(app, port=port, origins=list(origins), on_new_token=on_new_token)


async def _talk(painter: Painter, socket: WebSocket) -> None:
    """One page: what it asks is done in its order; what it is told waits in a queue."""
    await socket.accept()
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[dict[str, Any] | bytes] = asyncio.Queue()
    too_slow = asyncio.Event()

    def put(message: dict[str, Any] | bytes) -> None:
        if queue.qsize() > WAITING:
            too_slow.set()
        else:
            queue.put_nowait(message)

    def send(message: dict[str, Any] | bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(put, message)

    async def sending() -> None:
        while True:
            message = await queue.get()
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_text(json.dumps(message, default=str))

    async def receiving(page: int) -> None:
        async for text in socket.iter_text():
            try:
                request = json.loads(text)
                if not isinstance(request, dict):
                    raise UsageError("a request is an object")
                await asyncio.to_thread(painter.ask, page, request)
            except (TomoclassError, OSError, ValueError, RecursionError) as error:
                send({"kind": "trouble", "message": str(error)})

    page = await asyncio.to_thread(painter.enter, send)
    tasks = [asyncio.create_task(work) for work in (sending(), receiving(page), too_slow.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                task.result()
    finally:
        painter.leave(page)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Exception):
            await socket.close()


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound: the port that was asked for, or any that is free for 0.

    Raises
    ------
    ResourceError
        If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(128)  # whoever opens the address early waits
    except OSError as error:
        bound.close()
        raise ResourceError(
            f"{host}:{port} cannot be listened to ({error.strerror or error})", do="choose another --port"
        ) from error
    return bound


def origins_of(host: str, port: int, given: Sequence[str]) -> list[str]:
    """Where browsers may find the server: by its own names, and by those of a proxy that were given.

    Parameters
    ----------
    host : str
        The address that it listens on.
    port : int
    given : sequence of str
        Such as ``"https://jupyter.example.org"``.

    Returns
    -------
    list of str
        Such as ``"http://localhost:8765"``.
    """
    names = ["127.0.0.1", "localhost", "[::1]"] if host in LOOPBACK else [host, socket.gethostname(), socket.getfqdn()]
    if host in ("0.0.0.0", "::"):
        names += ["127.0.0.1", "localhost"]
    return [*(f"http://{name}:{port}" for name in dict.fromkeys(names)), *given]


def serve(
    painter: Painter, *, bound: socket.socket, origins: Sequence[str], on_new_token: Callable[[str], None]
) -> None:
    """Serve the page of a session until Ctrl-C or SIGTERM.

    Parameters
    ----------
    painter : Painter
    bound : socket.socket
        Of :func:`listening_socket`.
    origins : sequence of str
        Of :func:`origins_of`; pages from elsewhere are refused.
    on_new_token : callable
        Called with the secret that the address of the page must hold, each time that it changes.
    """
    app = make_app(painter, port=bound.getsockname()[1], origins=origins, on_new_token=on_new_token)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="websockets-sansio", ws_max_size=MOST_ASKED,
        timeout_graceful_shutdown=2, server_header=False, lifespan="off",
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn stops in order, then sends the signal once more
        uvicorn.Server(config).run(sockets=[bound])
