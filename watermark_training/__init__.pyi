"""Public names, one a line; `ownership.io.lazy` reads them from here."""

from watermark_training.augment import simclr_view as simclr_view
from watermark_training.callbacks import Callbacks as Callbacks
from watermark_training.config import TrainConfig as TrainConfig
from watermark_training.data import Data as Data
from watermark_training.data import load_data as load_data
from watermark_training.embed import embed_to as embed_to
from watermark_training.key_material import new_key_material as new_key_material
from watermark_training.keyed_watermark import KeyedWatermark as KeyedWatermark
from watermark_training.loaded_encoder import LoadedEncoder as LoadedEncoder
from watermark_training.loaded_encoder import load_trained as load_trained
from watermark_training.own_loop import save_train_folder as save_train_folder
from watermark_training.train_folder import TrainFolder as TrainFolder
from watermark_training.train_folder import train_to as train_to
from watermark_training.training import Trained as Trained
from watermark_training.training import train as train
from watermark_training.watermark import RotationWatermark as RotationWatermark
from watermark_training.watermark import fitted_predictor as fitted_predictor
from watermark_training.watermark import watermark_rate as watermark_rate
