"""Sandbox: run a suspect in one disposable, isolated process. May import: formats, encoders, io, errors.

```
SandboxedEncoder (encoder.py, in our process)            launch.py -> worker.py (in the sandbox)
  copies and hashes the suspect's file     -- frames -->   applies the isolation layers (layers.py), then imports torch
  sends images, checks each reply          <-- frames --   loads the copy, replies with float32 representations
```

A frame (frames.py) is raw bytes of a declared length. Nothing that the process sends is unpickled. docs/security.md
says what each isolation layer stops and what none of them stops.
"""
