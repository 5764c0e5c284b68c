"""The HTML report as a PDF, printed by an installed Chromium or Chrome."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from ownership.errors import OwnershipError
from ownership.io.files import read_bytes, write_bytes
from ownership.io.text import printable

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
"""Names of programs to look for, in this order."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # containers and root have none; the page is our own and runs nothing
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",  # the page brings its own page numbers
)

SECONDS = 120.0
"""Time limit for printing, in seconds."""


def write_pdf(html: Path, out: Path, *, seconds: float = SECONDS) -> None:
    """Print a page to a PDF file, whole or not at all.

    The browser gets its own profile, which is removed at the end, and of this process's environment only `PATH`.

    Args:
        html: The page, from `write_html`.
        out: The file to write.
        seconds: Time limit in seconds.

    Raises:
        OwnershipError: if there is no browser, it fails or takes too long, or the file cannot be written.
    """
    browser = find_browser()
    if not html.is_file():
        raise OwnershipError(f"{printable(html, 300)} is no file", "write the report first")
    with tempfile.TemporaryDirectory(prefix="turnmark-pdf-", ignore_cleanup_errors=True) as folder:
        printed = Path(folder) / "printed.pdf"
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", f"--print-to-pdf={printed}"]
        process = subprocess.Popen(
            [*command, html.resolve().as_uri()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": folder},
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired as e:
            raise OwnershipError(
                f"{printable(browser)} did not print the report within {seconds:g} seconds", "print report.html by hand"
            ) from e
        finally:
            with suppress(OSError):  # the browser's helpers, too
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if code != 0 or not printed.is_file():
            raise OwnershipError(f"{printable(browser)} could not print the report", "print report.html by hand")
        data = read_bytes(printed, OwnershipError, "printed report")
    if not data.startswith(b"%PDF-"):
        raise OwnershipError(f"{printable(browser)} wrote no PDF", "print report.html by hand")
    write_bytes(out, data)


def find_browser() -> str:
    """Return the path of the first browser that can print; raise OwnershipError if there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name)) is not None), None)
    if found is None:
        raise OwnershipError(
            "no Chromium or Chrome to print a PDF with",
            "install one, or open report.html in any browser and print it from there",
        )
    return found
