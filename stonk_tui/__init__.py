"""The cockpit: a terminal window onto training runs of the engine."""
