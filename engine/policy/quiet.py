"""Keep libraries from talking to each other's developers in our log."""

import logging
import warnings


def quieten_libraries() -> None:
    """Silence what is no news to a person; before the libraries are imported."""
    for name in ("transformers", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
