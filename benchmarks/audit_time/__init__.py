"""What does an audit cost over bare inference?

Suspect: torchvision's ResNet-50 (random weights) as ONNX, 224 pixels, about 1,000 probes.
"""
