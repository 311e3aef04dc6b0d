"""Log the metrics of every epoch: to files always, to other places where they are asked for."""

from hawq.train.loggers.files import CsvLog, JsonlLog

__all__ = ["CsvLog", "JsonlLog"]
