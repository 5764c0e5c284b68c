"""Model files: safetensors, PyTorch, torch.export, ONNX. May import: encoders, io, errors."""
