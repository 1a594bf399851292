"""`videomac app`: the page is served on this machine until Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from videomac.app.backbones import Backbones
from videomac.app.config import AppConfig
from videomac.app.session import Sessions
from videomac.errors import UserError
from videomac.utils.device import pick_device

LARGEST_UPLOAD = "2gb"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Server:
    """The page, served; to be closed in the end, which removes everything that was uploaded.

    Attributes:
        address: where the page is.
        root: folder of all files.

    Raises:
        UserError: gradio is missing, the port is taken, or the video or a backbone cannot be had.
    """

    def __init__(self, config: AppConfig) -> None:
        # Before the first import of gradio: no statistics are sent, and nobody asks for its latest version.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        _require_port(config.host, config.port)
        self.root = Path(tempfile.mkdtemp(prefix="videomac-app-"))  # readable by its owner only
        served = self.root / "served"
        os.environ["GRADIO_TEMP_DIR"] = str(served)  # uploads and downloads, of which gradio serves nothing else
        try:
            page_module = _page_module()
            backbones = Backbones(config.backbone or [], pick_device(config.device))
            first = backbones.choices[0][1]
            backbones.extractor(first, backbones.stage_for(first))
            self.sessions = Sessions(self.root, backbones, config.video)
            self.page = page_module.Page(self.sessions, served)
            self.address = self._launch(config, page_module)
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise

    def _launch(self, config: AppConfig, page_module: Any) -> str:
        here = Path(__file__).parent
        _, address, _ = self.page.blocks.launch(
            server_name=config.host, server_port=config.port, share=False, prevent_thread_lock=True, quiet=True,
            max_file_size=LARGEST_UPLOAD, show_error=False, ssr_mode=False, mcp_server=False, pwa=False,
            footer_links=[], run_history=False, enable_monitoring=False, inbrowser=False, i18n=None,
            theme=page_module.theme(), css=(here / "style.css").read_text("utf-8"),
            app_kwargs={"middleware": page_module.MIDDLEWARE},
        )  # fmt: skip
        return str(address)

    def close(self) -> None:
        """Stop serving, stop what runs, and remove all files."""
        self.sessions.close_all()
        self.page.blocks.close(verbose=False)
        shutil.rmtree(self.root, ignore_errors=True)


def run(config: AppConfig) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UserError: see `Server`.
    """
    # What is uploaded is removed then too. A shell starts a job in the background with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    server = Server(config)
    try:
        print(f"videomac app: open {server.address} in a browser; Ctrl-C ends it", flush=True)
        if config.host not in LOOPBACK:
            print("everybody who can reach this address can use it, without a password", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        print("\nvideomac app has ended; uploads are removed")
    finally:
        server.close()


def _page_module() -> Any:
    try:
        from videomac.app import page
    except ImportError as error:
        if error.name and error.name.startswith("videomac"):
            raise
        raise UserError("the app needs gradio: pip install '.[app]' in the checkout") from None
    return page


def _require_port(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(
            f"cannot serve on {host}, port {port} ({error.strerror or error}): pass another --port, such as {port + 1}"
        ) from None
