"""Log the metrics of every epoch: to files always, to other places where they are asked for."""

from hawq.train.loggers import files, mlflow, tensorboard  # noqa: F401  they register themselves
from hawq.train.loggers.registry import LOGGERS, Logger, open_loggers, register_logger

__all__ = ["LOGGERS", "Logger", "open_loggers", "register_logger"]
