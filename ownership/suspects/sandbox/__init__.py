"""The cage a suspect runs in: one disposable process a suspect, that sees probe images and nothing else.

```
SandboxedEncoder (encoder.py, in our process)            launch.py -> worker.py (in the cage)
  copies and hashes the suspect's file     -- frames -->   locks itself in (layers.py), only then imports torch
  sends images, checks what comes back    <-- frames --    reads the copy, answers with raw float32
```

Frames (frames.py) are raw bytes of stated size; nothing that comes back is ever unpickled. docs/security.md says what
each layer stops, and what none of them does.
"""
