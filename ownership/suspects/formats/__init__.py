"""Model files: safetensors, PyTorch, torch.export, ONNX. May import: errors, io, encoders."""
