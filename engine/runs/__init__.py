"""Runs on disk: directory, event store, control socket, launcher. Free of torch."""
