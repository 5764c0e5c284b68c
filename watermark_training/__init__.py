"""Self-supervised training of image encoders with a secret watermark. May import: ownership.

Train an encoder of your own architecture in your own loop::

    from watermark_training import KeyedWatermark, save_train_folder

or let this package train it::

    from watermark_training import TrainConfig, load_data, train

    trained = train(load_data("digits").images, TrainConfig(arch="tiny", epochs=12))

Names are imported when they are first used, so that `import watermark_training` costs nothing.
"""

from ownership.io.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
