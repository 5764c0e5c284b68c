"""A real round of drand's chain quicknet."""

from __future__ import annotations

import json

from ownership.attestation.beacon import QUICKNET, BeaconRound

NUMBER = 657_413
SIGNATURE = "b713718a38ae728dfd477991af2822e08d2f305e47718cef9f7848ce4050e7be41076862b98fad56e91a6b85b89cd97b"
RANDOMNESS = "fc1873a13f3545aeade8401532ef5519920652eee6b0d2b19ca12643b87b3587"
REPLY = json.dumps({"round": NUMBER, "randomness": RANDOMNESS, "signature": SIGNATURE}).encode()
"""What relays answer; round, signature and randomness as in the README of drand-verify's Python bindings."""
NAMED = BeaconRound(chain=QUICKNET, number=NUMBER)
