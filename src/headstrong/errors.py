"""Errors a user can cause, and the exit codes they end in.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | a defect of headstrong: please report it; of `verify`: the data set is not whole |
| 2 | the configuration or the command line is wrong |
| 3 | data or a file is missing, and a person must put it there |
| 4 | a file is there but is not what it should be: truncated, foreign, of another configuration |
| 5 | a computation failed: the loss is not a number |
| 6 | a download could not be finished: network, disk, another download under way; run it again later |
| 7 | the machine or another run stands in the way: no room on disk, a folder that cannot be written, a study in use |
"""

from __future__ import annotations


class UserError(Exception):
    """One line: the file, key or path; what was expected; what to do. `code` is the exit code."""

    code = 2


class ConfigError(UserError):
    """The configuration, or a command line, asks for something that cannot be."""

    code = 2


class MissingDataError(UserError):
    """Data or a file is not where it should be."""

    code = 3


class BrokenFileError(UserError):
    """A file is there, but is not what it should be."""

    code = 4


class DivergedError(UserError):
    """A computation left the numbers: NaN or infinity, with task, epoch and step named."""

    code = 5


class DownloadError(UserError):
    """The network, the disk, or another download of the same data set stands in the way; nothing is broken."""

    code = 6


class MachineError(UserError):
    """The machine stands in the way, or another run on it; nothing is broken, and the same command may work later."""

    code = 7
