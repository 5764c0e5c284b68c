"""A timestamp authority on this machine, by OpenSSL; and the same with another root."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

CONFIG = """
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
[stamps]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
[tsa]
default_tsa = this
[this]
serial = serial
signer_cert = tsa.pem
signer_key = tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
tsa_name = yes
ess_cert_id_chain = no
"""


@dataclass(frozen=True)
class Authority:
    folder: Path

    @property
    def roots(self) -> Path:
        return self.folder / "root.pem"

    def reply(self, query: Path, out: Path, *, chain: bool = False) -> Path:
        """Responses a request; `chain` adds the root to the certificates, not sorted as DER wants it."""
        more = ["-chain", "root.pem"] if chain else []
        openssl(
            self.folder,
            "ts",
            "-reply",
            "-config",
            "tsa.cnf",
            "-queryfile",
            query.resolve(),
            "-out",
            out.resolve(),
            *more,
        )
        return out

    def accepts(self, reply: Path, data: Path) -> bool:
        """What `openssl ts -verify` says."""
        command = ["openssl", "ts", "-verify", "-data", data, "-in", reply, "-CAfile", self.roots]
        return subprocess.run(command, capture_output=True).returncode == 0


def make_authority(folder: Path, name: str) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl tool is not installed: it is the timestamp authority of these tests")
    folder.mkdir(parents=True)
    (folder / "tsa.cnf").write_text(CONFIG)
    (folder / "serial").write_text("01\n")
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "tsa.cnf")
    openssl(folder, "req", "-x509", *new, "-keyout", "root.key", "-out", "root.pem", "-subj", f"/CN={name} root",
            "-days", 30, "-extensions", "root")  # fmt: skip
    openssl(folder, "req", *new, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", f"/CN={name}")
    openssl(folder, "x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
            "-out", "tsa.pem", "-days", 30, "-extfile", "tsa.cnf", "-extensions", "stamps")  # fmt: skip
    return Authority(folder)


def openssl(folder: Path, *arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
